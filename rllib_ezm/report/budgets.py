"""Env steps that runs took: how far each got, and what it was worth at a common budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rllib_ezm.errors import UserError
from rllib_ezm.report.runs import Curve, Trial

BUDGET_TOLERANCE = 0.05
"""Runs whose budgets differ by no more have equal ones: iterations end a little late."""


def budget(curves: Sequence[Curve]) -> float:
    """Mean over the runs of the env steps at which the last evaluation took place."""
    return float(np.mean([curve.env_steps[-1] for curve in curves]))


def within_budget(trials: Sequence[Trial], max_env_steps: float) -> tuple[list[Trial], list[Trial]]:
    """Leave out the evaluations after a number of env steps per task, and 5 % more.

    The tasks of a run may differ in their env steps, by an episode per slot at most; an evaluation
    counts by their mean.

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
        curves = _cut(trial, max_env_steps * (1 + BUDGET_TOLERANCE))
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


def _cut(trial: Trial, limit: float) -> dict[str, Curve]:
    """The trial's curves up to the limit, without those that begin after it."""
    curves = trial.curves
    if len({len(curve.env_steps) for curve in curves.values()}) == 1:
        mean = np.mean([curve.env_steps for curve in curves.values()], axis=0)
        taken = dict.fromkeys(curves, mean <= limit)
    else:  # some evaluation lacks a task
        taken = {task: curve.env_steps <= limit for task, curve in curves.items()}
    return {task: curve.at(taken[task]) for task, curve in curves.items() if taken[task].any()}
