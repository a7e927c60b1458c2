"""`write_report`: everything `rllib-ezm report` leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rllib_ezm.report import figures, gradients, tables
from rllib_ezm.report.aggregate import CONFIDENCE, NUM_RESAMPLES, STATISTICS
from rllib_ezm.report.blocks import Block, Figure, Heading, Items, Table, Text, to_markdown
from rllib_ezm.report.budgets import BUDGET_TOLERANCE, within_budget
from rllib_ezm.report.comparison import Comparison, compare
from rllib_ezm.report.html import find_videos, write_page
from rllib_ezm.report.reference import PublishedScore, published_scores
from rllib_ezm.report.runs import Trial, find_trials
from rllib_ezm.report.variants import Variant, group_trials
from rllib_ezm.utils.errors import UserError

REPORT_FILE = "report.md"
PAGE_FILE = "report.html"
POLICIES_NOTE = (
    "Random and do nothing (zero action): means of 20 episodes at action repeat 2. On `hb:` tasks: "
    "of 10 episodes, and of one with the action that aims at the start pose."
)

SCORES_NOTE = "Normalized scores; the optimality gap is what is missing to success: less is better."
TEST_NOTE = (
    "p: two-sided permutation test of the runs' mean scores, not corrected for the number of "
    "comparisons; three runs against three give 0.1 at least."
)


def write_report(
    directories: Sequence[Path],
    out: Path,
    *,
    statistic: str = "last",
    reference: str | None = None,
    group_by: Sequence[str] = (),
    published: bool = False,
    max_env_steps: float | None = None,
    html: bool = False,
    videos: Sequence[Path] = (),
) -> Path:
    """Write tables and figures of Tune results.

    Args:
        directories: Tune experiments, or folders of them.
        out: Folder for `report.md`, CSV tables, PNG and SVG figures; made if missing, the files of
            an earlier report are replaced.
        statistic: "last", "best" or "area", see `STATISTICS`.
        reference: Variant the others are compared with.
        group_by: Config fields that tell variants apart, see `group_trials`.
        published: Also show published scores of the same tasks.
        max_env_steps: Compare after so many env steps per task; None: at the end of each run.
        html: Also write `report.html`, a page with the figures, the settings that differ, the
            commands and the videos in it.
        videos: Folders of further videos for the page, see `find_videos`.

    Returns:
        The path of `report.md`, or of the page if there is one.

    Raises:
        UserError: If there are no results, a name is unknown, or `out` is a file.
    """
    out = out.expanduser()
    if out.exists() and not out.is_dir():
        raise UserError(f"--out: {out} is a file; name a folder")
    trials, unevaluated = find_trials(directories)
    late: list[Trial] = []
    if max_env_steps is not None:
        trials, late = within_budget(trials, max_env_steps)
    variants = group_trials(trials, group_by)
    comparisons, notes = compare(variants, statistic)
    if max_env_steps is not None:
        notes.append(_budget_note(max_env_steps))
    if reference is not None:
        notes += _check_reference(reference, comparisons)
    notes += _omission_notes(unevaluated, late)
    notes += tables.setting_notes(variants) + _scale_notes(variants)
    scores = published_scores(task for v in variants for task in v.tasks) if published else []
    if published and not scores:
        notes.append("No published score has the name of one of these tasks.")
    out.mkdir(parents=True, exist_ok=True)
    names = _write_figures(out, variants, comparisons, statistic, reference, scores)
    blocks: list[Block] = [
        Heading("Report", 1),
        Text(_introduction(statistic)),
        *_write_tables(out, variants, comparisons, statistic, reference),
        *map(Figure, names),
        *(_published_section(scores) if scores else []),
    ]
    ending: list[Block] = [Heading("Notes"), Items(notes)]
    file = out / REPORT_FILE
    file.write_text(to_markdown([*blocks, *ending]), encoding="utf-8")
    if not html:
        return file
    page = out / PAGE_FILE
    settings: list[Block] = [Heading("Settings that differ between runs"), *_settings(variants)]
    write_page(page, [*blocks, *settings, *ending], trials, find_videos(trials, videos))
    return page


def _settings(variants: Sequence[Variant]) -> list[Block]:
    rows = tables.setting_rows(variants)
    return [Table(rows)] if rows else [Text("None but the seed.")]


def _budget_note(max_env_steps: float) -> str:
    return (
        f"Left out: evaluations more than {BUDGET_TOLERANCE:.0%} after "
        f"{max_env_steps:,.0f} env steps per task. A run without an evaluation within "
        f"{BUDGET_TOLERANCE:.0%} of it has one interpolated there, its last in `curves.csv`."
    )


def _omission_notes(unevaluated: Sequence[str], late: Sequence[Trial]) -> list[str]:
    """Which trials the report leaves out."""
    notes = []
    if unevaluated:
        notes.append(f"Left out, because not evaluated yet: {', '.join(unevaluated)}.")
    if late:
        listing = ", ".join(f"{trial.experiment}/{trial.name}" for trial in late)
        notes.append(f"Left out, because first evaluated later: {listing}.")
    return notes


def _introduction(statistic: str) -> str:
    return (
        f"Statistic `{statistic}`: {STATISTICS[statistic]}. Brackets: "
        f"{CONFIDENCE:.0%} percentile bootstrap interval over runs ({NUM_RESAMPLES} resamples, "
        "each task resamples its own runs); a single seed has none. Score: (return - random) / "
        "(success - random), eq. 13 of arXiv:2603.01452. An env step is one decision of the agent. "
        "Every evaluation of every run is in `curves.csv`."
    )


def _write_tables(
    out: Path,
    variants: Sequence[Variant],
    comparisons: Sequence[Comparison],
    statistic: str,
    reference: str | None,
) -> list[Block]:
    """Write the CSV files; return the tables with their headings."""
    tasks = tables.task_rows(variants, statistic)
    tables.write_csv(out / "scores.csv", tasks)
    tables.write_csv(out / "curves.csv", tables.curve_rows(variants))
    aggregates = tables.aggregate_rows(comparisons, statistic, reference)
    if aggregates:
        tables.write_csv(out / "aggregates.csv", aggregates)
    sections: list[Block] = [
        Heading("Per task"),
        Table(tables.readable_task_rows(tasks)),
        Text(POLICIES_NOTE),
        *_info_section(out, variants, statistic),
        Heading("Over tasks"),
        Text(SCORES_NOTE if reference is None else f"{SCORES_NOTE} {TEST_NOTE}"),
    ]
    for comparison in comparisons:
        key = " ".join(comparison.tasks)
        rows = [row for row in aggregates if row["tasks"] == key]
        sections += [
            Text(f"{len(comparison.tasks)} tasks: {', '.join(comparison.tasks)}"),
            Table(tables.readable_aggregate_rows(rows)),
        ]
    return [*sections, Heading("Runs"), Table(tables.run_rows(variants)), Heading("Figures")]


def _info_section(out: Path, variants: Sequence[Variant], statistic: str) -> list[Block]:
    """Write the CSV file of the environments' metrics; return their section, if there are any."""
    rows = tables.info_rows(variants, statistic)
    if not rows:
        return []
    tables.write_csv(out / "info.csv", rows)
    return [Heading("Metrics of the environments"), Table(tables.readable_info_rows(rows))]


def _write_figures(
    out: Path,
    variants: Sequence[Variant],
    comparisons: Sequence[Comparison],
    statistic: str,
    reference: str | None,
    published: Sequence[PublishedScore],
) -> list[str]:
    """Write the figures as PNG and SVG; return their names."""
    styles = figures.variant_styles(variants)
    drawn = {"tasks": figures.task_curves(variants, styles, published)}
    if comparisons:
        drawn["learning_curve"] = figures.aggregate_curves(comparisons, styles)
        drawn["aggregates"] = figures.aggregate_bars(comparisons, styles, statistic)
        drawn["profile"] = figures.profiles(comparisons, styles, statistic)
    against = [c for c in comparisons if reference in c.scores and len(c.scores) > 1]
    if reference is not None and against:
        drawn["improvement"] = figures.improvement_bars(against, styles, statistic, reference)
    drawn |= gradients.gradient_figures(variants, styles)
    for name, figure in drawn.items():
        figures.save(figure, out, name)
    return list(drawn)


def _published_section(scores: Sequence[PublishedScore]) -> list[Block]:
    sources = dict.fromkeys(score.source for score in scores)
    return [
        Heading("Published scores"),
        Text("What the steps of each source mean:"),
        Items([f"{source.citation}. {source.x_axis}" for source in sources]),
        Table(tables.published_rows(scores)),
    ]


def _check_reference(reference: str, comparisons: Sequence[Comparison]) -> list[str]:
    """Refuse an unknown reference; return notes on variants it cannot be compared with."""
    names = [name for comparison in comparisons for name in comparison.scores]
    if reference not in names:
        raise UserError(f"--reference: no variant {reference!r}; there are: {', '.join(names)}")
    others = [n for c in comparisons if reference not in c.scores for n in c.scores]
    if not others:
        return []
    return [f"Not compared with `{reference}`, because on other tasks: {', '.join(others)}."]


def _scale_notes(variants: Sequence[Variant]) -> list[str]:
    unscaled = sorted(
        {
            task
            for variant in variants
            for task in variant.tasks
            if (variant.info(task).random_score, variant.info(task).success_score) == (0.0, 1.0)
        }
    )
    if not unscaled:
        return []
    return [
        f"{', '.join(unscaled)}: no random_score and success_score given, so the score is the "
        "plain return, and aggregates over it mean little."
    ]
