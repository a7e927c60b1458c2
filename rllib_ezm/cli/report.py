"""`rllib-ezm report`: tables and figures from the results of experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("dirs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="report",
    show_default=True,
    help="Folder for report.md, its tables (CSV) and figures (PNG, SVG).",
)
@click.option(
    "--statistic",
    type=click.Choice(["last", "best", "area"]),
    default="last",
    show_default=True,
    help="Of each run: mean of the last 10 % of its evaluations, its best one, or the mean of all.",
)
@click.option(
    "--max-env-steps",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Compare after N env steps per task: leave out what comes later; interpolate if need be.",
)
@click.option("--reference", metavar="NAME", help="Compare the other variants with this one.")
@click.option(
    "--group-by",
    multiple=True,
    metavar="FIELD",
    help="Config field that tells variants apart (a/b for a nested one; also `experiment` and "
    "`num_tasks`); repeatable. Default: the experiment's name without _seedN, and the fields of "
    "its grid.",
)
@click.option("--published", is_flag=True, help="Show published scores of the same tasks as well.")
@click.option(
    "--html",
    is_flag=True,
    help="Write report.html as well: one page with figures, tables, settings, commands and videos.",
)
@click.option(
    "--videos",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="For --html: videos of `rllib evaluate --video DIR`; repeatable. Those in the folders of "
    "the runs are found anyway.",
)
def report(dirs: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Write tables and figures with confidence intervals from the results in DIR...

    DIR is the folder of an experiment, or a folder of such.
    """
    from rllib_ezm.report import require_extra

    require_extra()
    if options["videos"] and not options["html"]:
        raise click.UsageError("--videos are for the page: add --html")
    from rllib_ezm.report.write import write_report

    click.echo(f"Report: {write_report(dirs, out, **options)}")
