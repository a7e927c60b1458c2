"""What the figures are made of: settings, panels, curves with bands, bars, the legend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from rllib_ezm.report.aggregate import Band, Estimate
from rllib_ezm.report.comparison import Comparison
from rllib_ezm.report.reference import POLICIES, PublishedScore

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
MAX_VARIANTS_WITH_RUNS = 2
"""Up to so many variants, curves of single runs are drawn as well."""
GREY = "#555555"
PUBLISHED = "published: "
SIMPLE_POLICIES = {policy: policy.replace("_", " ") for policy in POLICIES}
STEPS_LABEL = "env steps per task"
SCORE_LABEL = "normalized score"
PANEL = (3.6, 2.6)
ONLY_PANEL = (5.4, 3.4)
"""Width and height of a panel, in inches."""
MAX_COLUMNS = 3
LEGEND_CHARACTERS = 15.5
"""Characters of a legend per inch."""
MAX_TASKS_BY_NAME = 3
MAX_STRETCH = 2.0
"""How far beyond the curves an axis reaches to show published scores."""

SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "rllib_ezm",
}
styled = matplotlib.rc_context(SETTINGS)
"""Decorator: matplotlib reads its settings while a figure is drawn and while it is saved."""

Styles = Mapping[str, tuple[str, str]]


def make_panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, in rows of at most `MAX_COLUMNS`."""
    columns = min(count, MAX_COLUMNS)
    rows = math.ceil(count / columns)
    width, height = PANEL if count > 1 else ONLY_PANEL
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[count:]:
        axes.remove()
    return figure, list(grid.flat[:count])


def draw_band(
    axes: Axes, band: Band | None, style: tuple[str, str], name: str, variants: int
) -> None:
    """A curve with its interval, fainter among many variants; nothing without a common step."""
    if band is None:
        return
    color, line = style
    label = name if band.interval is not None else f"{name} (1 seed: no interval)"
    marker = "o" if len(band.x) == 1 else ""
    axes.plot(
        band.x, band.value, linestyle=line, marker=marker, ms=4, color=color, lw=1.6, label=label
    )
    if band.interval is not None:
        axes.fill_between(band.x, *band.interval, color=color, alpha=min(0.2, 0.6 / variants), lw=0)


def draw_published(
    axes: Axes, scores: Sequence[PublishedScore], methods: Sequence[str], action_repeat: int
) -> None:
    """Hollow grey markers behind the curves; what lies far beyond the axis sits at its edge.

    Args:
        axes: A panel with the curves of a task.
        scores: Published scores of that task.
        methods: All methods of the figure: a method has the same marker in every panel.
        action_repeat: Simulator steps per env step of the panel's axis.
    """
    edge = MAX_STRETCH * axes.get_xlim()[1]
    for method in dict.fromkeys(score.method for score in scores):
        mine = [score for score in scores if score.method == method]
        points = [(score.env_steps(action_repeat), score.return_mean) for score in mine]
        style: dict[str, Any] = {
            "color": GREY,
            "marker": MARKERS[methods.index(method) % len(MARKERS)],
            "markerfacecolor": "none",
            "markersize": 5,
            "zorder": 1,
            "label": f"{PUBLISHED}{method}; {mine[0].source.unit}",
        }
        inside = [point for point in points if point[0] <= edge]
        beyond = [(edge, level) for steps, level in points if steps > edge]
        for shown, width in ((inside, 0.6), (beyond, 0.0)):
            if shown:
                axes.plot(*zip(*shown, strict=True), lw=width, **style)
    far = {x for score in scores if (x := score.env_steps(action_repeat)) > edge}
    if far:
        marks = ", ".join(EngFormatter(sep="", places=0)(steps) for steps in sorted(far))
        axes.set_xlim(right=1.05 * edge)
        note: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 7, "color": GREY}
        axes.text(1, 1, f"at {marks} →", transform=axes.transAxes, **note)


def bars(
    rows: Sequence[Mapping[str, Mapping[str, Estimate]]],
    comparisons: Sequence[Comparison],
    styles: Styles,
) -> Figure:
    """Horizontal bars with intervals: a row per comparison, a column per measure."""
    columns = len(rows[0])
    heights = [0.75 + 0.28 * len(next(iter(row.values()))) for row in rows]
    figure = Figure(figsize=(2.9 * columns + 1.2, sum(heights) + 0.1), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for line, row, comparison in zip(grid, rows, comparisons, strict=True):
        for axes, (title, estimates) in zip(line, row.items(), strict=True):
            _draw_bars(axes, estimates, styles, named=axes is line[0])
            axes.set_title(title)
        label = tasks_title(comparison, separator="\n")
        line[0].set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
    for axes in grid[-1]:
        axes.set_xlabel(SCORE_LABEL)
    return figure


def _draw_bars(
    axes: Axes, estimates: Mapping[str, Estimate], styles: Styles, *, named: bool
) -> None:
    for position, (name, estimate) in enumerate(estimates.items()):
        axes.barh(position, estimate.value, 0.6, color=styles[name][0], alpha=0.55)
        if estimate.interval is not None:
            ends = np.abs(np.subtract(estimate.interval, estimate.value))[:, None]
            axes.errorbar(estimate.value, position, xerr=ends, color="black", capsize=3, lw=1.2)
        axes.plot(estimate.value, position, marker="|", ms=9, color="black")
    names = [n if e.interval is not None else f"{n} (1 seed)" for n, e in estimates.items()]
    axes.set_yticks(range(len(names)), names if named else [""] * len(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.0), max(high, 1.0))
    axes.grid(visible=False, axis="y")


def tasks_title(comparison: Comparison, separator: str = ", ") -> str:
    """The tasks of a comparison by name, or how many they are."""
    if len(comparison.tasks) > MAX_TASKS_BY_NAME:
        return f"{len(comparison.tasks)} tasks"
    return separator.join(task.rpartition(":")[2] for task in comparison.tasks)


def legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend below all panels, with as many columns as its longest label allows."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    entries = dict(sorted(found.items(), key=_legend_rank))
    characters = LEGEND_CHARACTERS * figure.get_figwidth()
    columns = min(max(int(characters / (max(map(len, entries)) + 7)), 1), len(entries))
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(entries) / columns))
    figure.legend(
        handles=list(entries.values()),
        labels=list(entries),
        loc="outside lower center",
        ncols=columns,
    )


def _legend_rank(entry: tuple[str, Any]) -> int:
    """Variants first, then simple policies, then what others published."""
    label = entry[0]
    return 2 if label.startswith(PUBLISHED) else int(label in SIMPLE_POLICIES.values())
