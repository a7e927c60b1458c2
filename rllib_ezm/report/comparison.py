"""Variants on the same tasks, side by side: only these have comparable aggregates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rllib_ezm.report.aggregate import summarize
from rllib_ezm.report.budgets import BUDGET_TOLERANCE, budget
from rllib_ezm.report.runs import Curve
from rllib_ezm.report.variants import Variant


@dataclass(frozen=True)
class Comparison:
    """Variants of one set of tasks.

    Attributes:
        tasks: The tasks, in the order of the first variant.
        curves: Of each variant: T lists of R curves, the same runs for every task.
        scores: Of each variant: the statistic of the normalized scores [R, T].
    """

    tasks: tuple[str, ...]
    curves: dict[str, list[list[Curve]]]
    scores: dict[str, np.ndarray]


def compare(variants: Sequence[Variant], statistic: str) -> tuple[list[Comparison], list[str]]:
    """Sort the variants by their tasks.

    Returns:
        A comparison per set of tasks (none where no run has all of them), and what its reader has
        to know, as sentences.
    """
    groups: dict[frozenset[str], list[Variant]] = {}
    for variant in variants:
        groups.setdefault(frozenset(variant.tasks), []).append(variant)
    comparisons, notes = [], []
    for members in groups.values():
        tasks = members[0].tasks
        comparison = Comparison(tasks, {}, {})
        for variant in members:
            runs, dropped = _complete_runs(variant)
            if dropped:
                notes.append(
                    f"`{variant.name}`: no evaluation of every task for {', '.join(dropped)}, "
                    "which the aggregates leave out."
                )
            if not runs:
                continue
            curves = [[run[task] for run in runs] for task in tasks]
            comparison.curves[variant.name] = curves
            comparison.scores[variant.name] = np.array(
                [[summarize(curve.scores, statistic) for curve in task] for task in curves]
            ).T
        if comparison.scores:
            notes += _budget_notes(comparison)
            comparisons.append(comparison)
    return comparisons, notes


def _complete_runs(variant: Variant) -> tuple[list[dict[str, Curve]], list[str]]:
    """Curves of all tasks by run, and names of the runs that lack one.

    Trials of one seed are one run: where each trial has a task of its own, a seed completes them.
    """
    runs: dict[str, dict[str, Curve]] = {}
    for trial in variant.trials:
        unseeded = f"trial {trial.experiment}/{trial.name}"
        run = unseeded if trial.seed is None else f"seed {trial.seed}"
        runs.setdefault(run, {}).update(trial.curves)
    complete = {name: run for name, run in runs.items() if set(run) == set(variant.tasks)}
    return list(complete.values()), [name for name in runs if name not in complete]


def _budget_notes(comparison: Comparison) -> list[str]:
    budgets = {
        name: budget([curve for task in tasks for curve in task])
        for name, tasks in comparison.curves.items()
    }
    if min(budgets.values()) >= (1 - BUDGET_TOLERANCE) * max(budgets.values()):
        return []
    listing = ", ".join(f"`{name}` {steps:,.0f}" for name, steps in budgets.items())
    return [f"Unequal budgets, in env steps per task at the last evaluation: {listing}."]
