"""Env steps that runs took: how far each got, and what it was worth at a common budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rllib_ezm.report.runs import Curve, Trial
from rllib_ezm.utils.errors import UserError

BUDGET_TOLERANCE = 0.05
"""Runs whose budgets differ by no more have equal ones: iterations end a little late."""


def budget(curves: Sequence[Curve]) -> float:
    """Mean over the runs of the env steps at which the last evaluation took place."""
    return float(np.mean([curve.env_steps[-1] for curve in curves]))


def within_budget(trials: Sequence[Trial], max_env_steps: float) -> tuple[list[Trial], list[Trial]]:
    """What the runs had shown after a number of env steps per task.

    Evaluations more than 5 % later are left out. Where none took place within 5 %, one is
    interpolated between those before and after. The tasks of a run may differ in their env steps,
    by an episode per slot at most; an evaluation counts by their mean.

    Args:
        trials: The trials.
        max_env_steps: Env steps (decisions) per task, positive.

    Returns:
        The trials with what is left of their curves, and those that have nothing left.

    Raises:
        UserError: If none has anything left.
    """
    kept, dropped = [], []
    for trial in trials:
        curves = _cut(trial, max_env_steps)
        if curves:
            kept.append(replace(trial, curves=curves))
        else:
            dropped.append(trial)
    if not kept:
        first = min(np.mean([c.env_steps[0] for c in t.curves.values()]) for t in trials)
        raise UserError(
            f"--max-env-steps: no evaluation took place by {max_env_steps:,.0f} env steps per "
            f"task; the first one was at {first:,.0f}"
        )
    return kept, dropped


def _cut(trial: Trial, budget: float) -> dict[str, Curve]:
    """The trial's curves up to the budget, without those that begin after it."""
    curves = trial.curves
    steps = {task: curve.env_steps for task, curve in curves.items()}
    if len({len(curve.env_steps) for curve in curves.values()}) == 1:
        mean: np.ndarray = np.mean(list(steps.values()), axis=0)
        steps = dict.fromkeys(curves, mean)
    # Otherwise some evaluation lacks a task, and tasks count for themselves.
    return {
        task: _until(curve, steps[task], budget)
        for task, curve in curves.items()
        if steps[task][0] <= budget * (1 + BUDGET_TOLERANCE)
    }


def _until(curve: Curve, steps: np.ndarray, budget: float) -> Curve:
    """The curve's evaluations, which took place after so many `steps` [P], up to the budget."""
    taken = steps <= budget * (1 + BUDGET_TOLERANCE)
    kept = curve.at(taken)
    if taken.all() or steps[taken][-1] >= budget * (1 - BUDGET_TOLERANCE):
        return kept
    return kept.followed_by(np.interp(budget, steps, column) for column in curve.columns)
