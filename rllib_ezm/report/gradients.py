"""Figures of the gradient probe: task x task heat-maps over training, and curves (Fig. 3)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from rllib_ezm.report.drawing import (
    MAX_VARIANTS_WITH_RUNS,
    Styles,
    legend,
    make_panels,
    styled,
)
from rllib_ezm.report.runs import GradientCosines
from rllib_ezm.report.variants import Variant

STAGES = ("first third", "second third", "last third")
MAX_TASKS_WITH_NUMBERS = 6

Runs = Sequence[GradientCosines]
Line = tuple[np.ndarray, np.ndarray]


def gradient_figures(variants: Sequence[Variant], styles: Styles) -> dict[str, Figure]:
    """Heat-maps of each variant that was probed, and the curves of all; by their files' names."""
    maps: dict[str, Figure] = {}
    probed: dict[str, Runs] = {}
    for variant in variants:
        by_tasks: dict[tuple[str, ...], list[GradientCosines]] = {}
        for trial in variant.trials:
            if trial.gradients is not None:
                by_tasks.setdefault(tuple(trial.tasks), []).append(trial.gradients)
        for index, (tasks, runs) in enumerate(by_tasks.items()):
            name = "_".join(re.findall(r"\w+", variant.name)) + (f"_{index + 1}" if index else "")
            maps[f"gradients_{name}"] = heat_map(variant.name, tasks, runs)
            probed[variant.name] = [*probed.get(variant.name, []), *runs]
    return maps | {"gradient_curves": similarity_curves(probed, styles)} if maps else {}


@styled
def heat_map(title: str, tasks: Sequence[str], runs: Runs) -> Figure:
    """Mean cosine over the runs: a row per third of the training, a column per module."""
    modules, end = list(runs[0].cosines), max(float(run.updates[-1]) for run in runs)
    side = max(2.0, 0.35 * len(tasks) + 0.8)
    size = (side * len(modules) + 2.0, side * len(STAGES) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(STAGES), len(modules), sharex=True, sharey=True, squeeze=False)
    names = [task.rpartition(":")[2] for task in tasks]
    for (row, column), axes in np.ndenumerate(grid):
        mean = stage_mean(runs, modules[column], row, end)
        image = axes.imshow(mean, cmap="RdBu_r", vmin=-1.0, vmax=1.0)
        axes.grid(visible=False)
        if len(names) <= MAX_TASKS_WITH_NUMBERS:
            for (i, j), value in np.ndenumerate(mean):
                if i != j and np.isfinite(value):
                    axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.set(title=modules[column] if row == 0 else "", ylabel="" if column else STAGES[row])
    figure.colorbar(image, ax=grid, label="cosine of the tasks' gradients", shrink=0.6)
    figure.suptitle(f"{title} ({len(runs)} run{'s' if len(runs) > 1 else ''})")
    return figure


def stage_mean(runs: Runs, module: str, stage: int, end: float) -> np.ndarray:
    """Mean over runs and the measurements in a third of `end` updates [T, T]; NaN without any."""
    found = []
    for run in runs:
        stages = np.minimum(run.updates * len(STAGES) / end, len(STAGES) - 1).astype(int)
        found.append(run.cosines[module][stages == stage])
    values = np.concatenate(found)
    known = np.isfinite(values)
    total, count = np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


@styled
def similarity_curves(probed: dict[str, Runs], styles: Styles) -> Figure:
    """Mean cosine over all pairs of tasks against updates, a panel per module.

    A line per run; of more than two variants, their mean over the updates that all runs reached.
    Algorithms may have different modules.
    """
    modules = list(
        dict.fromkeys(m for runs in probed.values() for run in runs for m in run.cosines)
    )
    figure, panels = make_panels(len(modules))
    for axes, module in zip(panels, modules, strict=True):
        for name, runs in probed.items():
            lines = [pair_mean(run, module) for run in runs if module in run.cosines]
            if len(probed) > MAX_VARIANTS_WITH_RUNS:
                lines = [mean_line(lines)]
            for updates, mean in lines:
                color, line = styles[name]
                axes.plot(updates, mean, line, color=color, lw=1.0, label=name)
        axes.axhline(0.0, color="black", lw=0.6)
        axes.set(title=module, xlabel="updates", ylabel="mean cosine of two tasks")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    legend(figure, panels)
    return figure


def pair_mean(run: GradientCosines, module: str) -> Line:
    """Updates [P'] and the mean cosine over the pairs of tasks [P'], where any is known."""
    matrices = run.cosines[module]
    first, second = np.triu_indices(matrices.shape[1], k=1)
    pairs = matrices[:, first, second]
    known = np.isfinite(pairs).any(axis=1)
    return run.updates[known], np.nanmean(pairs[known], axis=1)


def mean_line(lines: Sequence[Line]) -> Line:
    """Mean of the lines at every update that one of them has and all of them cover."""
    lines = [line for line in lines if line[0].size]
    if not lines:
        return np.empty(0), np.empty(0)
    grid = np.unique(np.concatenate([updates for updates, _ in lines]))
    covered = (grid >= max(x[0] for x, _ in lines)) & (grid <= min(x[-1] for x, _ in lines))
    grid = grid[covered]
    return grid, np.mean([np.interp(grid, *line) for line in lines], axis=0)
