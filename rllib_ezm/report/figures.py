"""Figures: learning curves per task and over tasks, aggregates, profiles, improvement.

Colors are those of Okabe and Ito, which color-blind readers tell apart; further variants repeat
them with other line styles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from rllib_ezm.report.aggregate import (
    MEASURES,
    aggregate_estimate,
    iqm_curve,
    mean_curve,
    performance_profile,
    probability_of_improvement,
)
from rllib_ezm.report.comparison import Comparison
from rllib_ezm.report.drawing import (
    GREY,
    MAX_VARIANTS_WITH_RUNS,
    SCORE_LABEL,
    SIMPLE_POLICIES,
    STEPS_LABEL,
    Styles,
    bars,
    draw_band,
    draw_published,
    legend,
    make_panels,
    styled,
    tasks_title,
)
from rllib_ezm.report.reference import PublishedScore, reference_returns
from rllib_ezm.report.variants import Variant

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", "-.", ":")


def variant_styles(variants: Iterable[Variant]) -> Styles:
    """Color and line style of each variant, the same in all figures."""
    return {
        variant.name: (
            COLORS[index % len(COLORS)],
            LINE_STYLES[index // len(COLORS) % len(LINE_STYLES)],
        )
        for index, variant in enumerate(variants)
    }


@styled
def save(figure: Figure, out: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg; equal figures give equal files."""
    files = [out / f"{name}.png", out / f"{name}.svg"]
    figure.savefig(files[0], dpi=150)
    figure.savefig(files[1], metadata={"Date": None})
    return files


@styled
def task_curves(
    variants: Sequence[Variant], styles: Styles, published: Sequence[PublishedScore] = ()
) -> Figure:
    """Evaluation return against env steps, a panel per task, with simple policies as levels."""
    tasks = list(dict.fromkeys(task for variant in variants for task in variant.tasks))
    figure, panels = make_panels(len(tasks))
    methods = list(dict.fromkeys(score.method for score in published))
    simple = reference_returns()
    for axes, task in zip(panels, tasks, strict=True):
        for variant in variants:
            curves = variant.curves(task)
            if not curves:
                continue
            if len(variants) <= MAX_VARIANTS_WITH_RUNS and len(curves) > 1:
                for curve in curves:
                    color = styles[variant.name][0]
                    axes.plot(curve.env_steps, curve.returns, color=color, lw=0.7, alpha=0.4)
            style = styles[variant.name]
            draw_band(axes, mean_curve(curves), style, variant.name, len(variants))
        for (policy, label), line in zip(SIMPLE_POLICIES.items(), (":", "--"), strict=True):
            level = simple.get((task, policy))
            if level is not None:
                axes.axhline(level, color=GREY, linestyle=line, lw=0.9, label=label)
        repeat = next(v.info(task).action_repeat for v in variants if task in v.tasks)
        mine = [score for score in published if score.task == task]
        draw_published(axes, mine, methods, repeat)
        axes.set(title=task, xlabel=STEPS_LABEL, ylabel="evaluation return")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    legend(figure, panels)
    return figure


@styled
def aggregate_curves(comparisons: Sequence[Comparison], styles: Styles) -> Figure:
    """IQM of the normalized scores against env steps per task, a panel per set of tasks."""
    figure, panels = make_panels(len(comparisons))
    for axes, comparison in zip(panels, comparisons, strict=True):
        for name, curves in comparison.curves.items():
            draw_band(axes, iqm_curve(curves), styles[name], name, len(comparison.curves))
        axes.set(title=tasks_title(comparison), xlabel=STEPS_LABEL, ylabel=f"IQM {SCORE_LABEL}")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    legend(figure, panels)
    return figure


@styled
def aggregate_bars(comparisons: Sequence[Comparison], styles: Styles, statistic: str) -> Figure:
    """IQM, mean and optimality gap of each variant with intervals, a row per set of tasks."""
    return bars(
        [
            {
                f"{measure} ({statistic})": {
                    name: aggregate_estimate(scores, measure)
                    for name, scores in comparison.scores.items()
                }
                for measure in MEASURES
            }
            for comparison in comparisons
        ],
        comparisons,
        styles,
    )


@styled
def improvement_bars(
    comparisons: Sequence[Comparison], styles: Styles, statistic: str, reference: str
) -> Figure:
    """Probability of improvement over the reference, a row per set of tasks that has it."""
    figure = bars(
        [
            {
                f"P(better than {reference}), {statistic}": {
                    name: probability_of_improvement(scores, comparison.scores[reference])
                    for name, scores in comparison.scores.items()
                    if name != reference
                }
            }
            for comparison in comparisons
        ],
        comparisons,
        styles,
    )
    for axes in figure.axes:
        axes.set(xlim=(0, 1), xlabel="probability")
        axes.axvline(0.5, color=GREY, linestyle=":", lw=1.0)
    return figure


@styled
def profiles(comparisons: Sequence[Comparison], styles: Styles, statistic: str) -> Figure:
    """Share of runs and tasks above a score, a panel per set of tasks."""
    figure, panels = make_panels(len(comparisons))
    for axes, comparison in zip(panels, comparisons, strict=True):
        scores = np.concatenate([scores.ravel() for scores in comparison.scores.values()])
        thresholds = np.linspace(min(0.0, scores.min()), max(1.0, scores.max()), 101)
        for name, of_variant in comparison.scores.items():
            band = performance_profile(of_variant, thresholds)
            draw_band(axes, band, styles[name], name, len(comparison.scores))
        axes.set(
            title=tasks_title(comparison),
            xlabel=f"{SCORE_LABEL} τ ({statistic})",
            ylabel="share of runs above τ",
            ylim=(-0.02, 1.02),
        )
    legend(figure, panels)
    return figure
