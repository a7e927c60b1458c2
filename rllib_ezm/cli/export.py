"""`rllib-ezm export`: a trained agent as files that act without Ray."""

from __future__ import annotations

from pathlib import Path

import click

from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.file_names import file_names

ALL = "all"


@click.command()
@click.argument("policy", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(["onnx", "safetensors"]), default="onnx")
@click.option(
    "--planner",
    type=click.Choice(["search", "mean"]),
    default="search",
    show_default=True,
    help="What the graph does: the search, or the mean of the policy alone.",
)
@click.option("--task", default=ALL, show_default=True, help="One of its tasks, or all.")
@click.option(
    "--num-simulations",
    type=click.IntRange(min=0),
    help="Of the search.  [default: as in its evaluations]",
)
@click.option(
    "--budget-ms",
    type=click.FloatRange(min=0, min_open=True),
    help="Halve the simulations until 99 % of the actions take less on one core of this machine.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR")
def export(
    policy: Path,
    kind: str,
    planner: str,
    task: str,
    num_simulations: int | None,
    budget_ms: float | None,
    out: Path,
) -> None:
    """Write a POLICY (a checkpoint of EZM, or an exported folder) for use without Ray.

    "onnx": one graph per task, from its observation to its action, checked against PyTorch on 1,000
    observations. "safetensors": what `rllib_ezm.load_policy` reads.
    """
    from rllib_ezm.policy.load import load_policy, save_policy

    loaded = load_policy(policy)
    if kind == "safetensors":
        save_policy(loaded, out)
        click.echo(f"{out}: load it with rllib_ezm.load_policy({out.as_posix()!r})")
        return
    from rich.console import Console
    from rich.table import Table

    from rllib_ezm.policy.onnx_export import export_onnx, require_onnx, table

    require_onnx()
    tasks = loaded.tasks if task == ALL else (task,)
    if task not in (ALL, *loaded.tasks):
        raise UserError(f"{policy} has no task {task!r}: it has {', '.join(loaded.tasks)}")
    exported = []
    for name, stem in zip(tasks, file_names(tasks), strict=True):
        click.echo(f"Exporting {name} ...")
        exported.append(
            export_onnx(
                loaded,
                name,
                out / f"{stem}.onnx",
                planner="mean" if planner == "mean" else "search",
                num_simulations=num_simulations,
                budget_ms=budget_ms,
            )
        )
    columns = ("file", "simulations", "p50 ms", "p99 ms", "same action", "largest difference")
    rich_table = Table(*columns, title=f"{out}: one observation on one core; against PyTorch")
    for row in table(exported):
        rich_table.add_row(*row)
    Console().print(rich_table)
