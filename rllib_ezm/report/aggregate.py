"""Named statistics, aggregates over runs and tasks, and their 95 % bootstrap intervals.

The measures are those of rliable (arXiv:2108.13264), the bootstrap is scipy's, stratified over
tasks: every task resamples its own runs. rliable's own bootstrap is not used: release 1.2 draws
from numpy's global generator whatever seed it is given, and cannot be imported beside pandas 3.

Shape legend: R runs, T tasks, P points of a curve, K thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rliable import metrics
from scipy import stats

from rllib_ezm.report.runs import Curve

CONFIDENCE = 0.95
NUM_RESAMPLES = 2000
NUM_PERMUTATIONS = 10_000
MAX_POINTS = 100

STATISTICS = {
    "last": "mean of the last 10 % of evaluations of each run (at least one)",
    "best": "BEST single evaluation of each run and task, which flatters noisy runs",
    "area": "mean of all evaluations of each run: the area under its learning curve",
}
MEASURES: dict[str, Callable[[np.ndarray], float]] = {
    "IQM": metrics.aggregate_iqm,
    "mean": metrics.aggregate_mean,
    "optimality gap": metrics.aggregate_optimality_gap,
}
"""Aggregates of normalized scores [R, T]; the optimality gap is below success: less is better."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: The number, of the runs at hand.
        interval: Lower and upper bound of the 95 % interval over runs; None for one run.
        runs: R.
    """

    value: float
    interval: tuple[float, float] | None
    runs: int


@dataclass(frozen=True)
class Band:
    """A curve with its interval.

    Attributes:
        x: Env steps per task, or thresholds [P].
        value: The curve [P].
        interval: Lower and upper bound at each point [2, P]; None for one run.
        runs: R.
    """

    x: np.ndarray
    value: np.ndarray
    interval: np.ndarray | None
    runs: int


def summarize(evaluations: np.ndarray, statistic: str) -> float:
    """One number for the evaluations of a run [P], see `STATISTICS`."""
    if statistic == "best":
        return float(np.max(evaluations))
    if statistic == "area":
        return float(np.mean(evaluations))
    return float(np.mean(evaluations[-max(len(evaluations) // 10, 1) :]))


def task_estimate(values: np.ndarray) -> Estimate:
    """Mean over the runs of one task [R]."""
    interval = bootstrap(values[:, None], _mean)
    return Estimate(float(np.mean(values)), _pair(interval), len(values))


def aggregate_estimate(scores: np.ndarray, measure: str) -> Estimate:
    """A measure of `MEASURES` over the normalized scores [R, T]."""
    function = MEASURES[measure]

    def over_resamples(samples: np.ndarray) -> np.ndarray:
        flat = samples.reshape(-1, *samples.shape[-2:])
        return np.array([function(sample) for sample in flat]).reshape(samples.shape[:-2])

    interval = bootstrap(scores, over_resamples)
    return Estimate(float(function(scores)), _pair(interval), len(scores))


def probability_of_improvement(scores: np.ndarray, reference: np.ndarray) -> Estimate:
    """Probability that a run scores above one of the reference on the same task, mean over tasks.

    A tie counts one half. The same number as rliable's, which tests each task's hypothesis on the
    way and takes minutes for a bootstrap.

    Args:
        scores: Normalized scores [R, T].
        reference: Those of the reference, on the same tasks [R', T].

    Raises:
        ValueError: If the numbers of tasks differ.
    """
    if scores.shape[1] != reference.shape[1]:
        raise ValueError(f"{scores.shape[1]} tasks against {reference.shape[1]}")
    num_tasks = scores.shape[1]

    def wins(*data: np.ndarray, axis: int = -1) -> np.ndarray:
        x = np.stack(data[:num_tasks], axis=-1)[..., :, None, :]
        y = np.stack(data[num_tasks:], axis=-1)[..., None, :, :]
        return np.mean((x > y) + 0.5 * (x == y), axis=(-3, -2, -1))

    samples = [*scores.T, *reference.T]
    runs = min(len(scores), len(reference))
    interval = None if runs < 2 else _percentiles(samples, wins)
    return Estimate(float(wins(*samples)), _pair(interval), runs)


def permutation_p_value(scores: np.ndarray, reference: np.ndarray) -> float | None:
    """How often two groups drawn from the same runs at random differ at least as much.

    The permutation test of the runs' mean scores over the tasks, two-sided (twice the smaller
    tail). Exact for few runs, where it cannot become small: three against three give 0.1 or more.

    Args:
        scores: Normalized scores [R, T].
        reference: Those of the reference [R', T].

    Returns:
        The p value, without a correction for further comparisons; None if either has one run.
    """
    if min(len(scores), len(reference)) < 2:
        return None
    test = stats.permutation_test(
        (scores.mean(axis=1), reference.mean(axis=1)),
        _difference,
        vectorized=True,
        n_resamples=NUM_PERMUTATIONS,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> Band:
    """Share of runs and tasks [R, T] whose score is above each threshold [K]."""
    above = (scores[..., None] > thresholds).astype(np.float64)
    return Band(thresholds, above.mean(axis=(0, 1)), bootstrap(above, _mean), len(scores))


def mean_curve(curves: Sequence[Curve]) -> Band | None:
    """Mean return of one task's R runs against env steps; None if they have no step in common."""
    grid = _common_grid(curves)
    if grid is None:
        return None
    values = np.stack([np.interp(grid, curve.env_steps, curve.returns) for curve in curves])
    return Band(grid, values.mean(axis=0), bootstrap(values[:, None], _mean), len(curves))


def iqm_curve(curves: Sequence[Sequence[Curve]]) -> Band | None:
    """IQM of the normalized scores of R runs on T tasks against env steps per task.

    Args:
        curves: T lists of R curves.

    Returns:
        The curve, or None if the runs have no env step in common.
    """
    grid = _common_grid([curve for task in curves for curve in task])
    if grid is None:
        return None
    scores = np.stack(
        [[np.interp(grid, curve.env_steps, curve.scores) for curve in task] for task in curves],
        axis=1,
    )
    value = _iqm(np.moveaxis(scores, -1, 0))
    return Band(grid, value, bootstrap(scores, _iqm), len(scores))


def bootstrap(
    values: np.ndarray, function: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray | None:
    """Percentile interval of a function of runs and tasks, stratified over tasks.

    Args:
        values: The runs [R, T, ...].
        function: Maps [..., R, T] to [...].

    Returns:
        Lower and upper bounds [2, ...], or None for R = 1, whose spread is unknown.
    """
    if len(values) < 2:
        return None

    def of_tasks(*data: np.ndarray, axis: int = -1) -> np.ndarray:
        return function(np.stack(data, axis=-1))

    return _percentiles([values[:, task] for task in range(values.shape[1])], of_tasks)


def _percentiles(samples: Sequence[np.ndarray], function: Callable[..., np.ndarray]) -> np.ndarray:
    """Interval of `function(*samples)`, each sample [R, ...] resampled on its own."""
    interval = stats.bootstrap(
        samples,
        function,
        axis=0,
        n_resamples=NUM_RESAMPLES,
        batch=200,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return np.stack([interval.low, interval.high])


def _common_grid(curves: Sequence[Curve]) -> np.ndarray | None:
    """Env steps that every curve covers [P], as many as the curve with most evaluations has."""
    first = max(curve.env_steps[0] for curve in curves)
    last = min(curve.env_steps[-1] for curve in curves)
    if first > last:
        return None
    if len({curve.env_steps.tobytes() for curve in curves}) == 1:
        return curves[0].env_steps
    points = min(max(len(curve.env_steps) for curve in curves), MAX_POINTS)
    return np.linspace(first, last, points if last > first else 1)


def _difference(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean(x, axis=axis) - np.mean(y, axis=axis)


def _mean(samples: np.ndarray) -> np.ndarray:
    return np.mean(samples, axis=(-2, -1))


def _iqm(samples: np.ndarray) -> np.ndarray:
    """What `metrics.aggregate_iqm` computes of one [R, T], for all [..., R, T] at once."""
    return stats.trim_mean(samples.reshape(*samples.shape[:-2], -1), 0.25, axis=-1)


def _pair(interval: np.ndarray | None) -> tuple[float, float] | None:
    return None if interval is None else (float(interval[0]), float(interval[1]))
