"""What an evaluation found: returns and normalized scores of each task, and their table.

Scores follow eq. 13, arXiv:2603.01452: (return - random) / (success - random).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class TaskResult:
    """The episodes of one task.

    Attributes:
        task: Name of the task.
        returns: Undiscounted return of each episode, in the task's own reward unit.
        lengths: Length of each episode, in decisions of the agent.
        normalized_scores: Normalized score of each episode (0 random, 1 success).
        physics_errors: Episodes that a breakdown of the simulation cut short.
        env_failures: How often an environment raised an exception.
        info: Of each metric (`TaskSpec.info_metrics`), its value in each episode; None where the
            environment did not report it.

    Raises:
        ValueError: If there is no episode, the lists differ in length, or a number is not finite.
    """

    task: str
    returns: list[float]
    lengths: list[int]
    normalized_scores: list[float]
    physics_errors: int = 0
    env_failures: int = 0
    info: Mapping[str, Sequence[float | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {len(self.returns), len(self.lengths), len(self.normalized_scores)}
        if len(counts) != 1 or counts == {0}:
            raise ValueError(
                f"{self.task}: needs one return, length and score per episode and at least one "
                f"episode, got {len(self.returns)}, {len(self.lengths)} and "
                f"{len(self.normalized_scores)}"
            )
        if not all(math.isfinite(x) for x in (*self.returns, *self.normalized_scores)):
            raise ValueError(f"{self.task}: a return or score is not finite")
        for name, values in self.info.items():
            if len(values) != self.episodes:
                raise ValueError(f"{self.task}: {len(values)} values of {name!r} for its episodes")

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.returns)

    @property
    def return_mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def return_std(self) -> float:
        """Standard deviation of the returns over the episodes (population)."""
        return float(np.std(self.returns))

    @property
    def length_mean(self) -> float:
        """Mean length, in decisions of the agent."""
        return float(np.mean(self.lengths))

    @property
    def normalized_score_mean(self) -> float:
        """Mean normalized score."""
        return float(np.mean(self.normalized_scores))

    @property
    def info_means(self) -> dict[str, float]:
        """Mean of each metric over the episodes that reported it, if any did."""
        reported = {
            name: [value for value in values if value is not None]
            for name, values in self.info.items()
        }
        return {name: float(np.mean(values)) for name, values in reported.items() if values}

    def normalized_score_interval(self) -> tuple[float, float] | None:
        """Bootstrap interval of the mean score, see `bootstrap_interval`."""
        return bootstrap_interval([self.normalized_scores])


@dataclass(frozen=True)
class EvaluationReport:
    """The results of all tasks of one checkpoint.

    Attributes:
        tasks: One result per task.
        protocol: "benchmark" or "released", see `rllib_ezm.tasks.protocol`.

    Raises:
        ValueError: If there is no task or a task appears twice.
    """

    tasks: Sequence[TaskResult]
    protocol: str = "benchmark"

    def __post_init__(self) -> None:
        names = [result.task for result in self.tasks]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"needs at least one task and each only once, got {names}")

    @property
    def normalized_score_mean(self) -> float:
        """Mean over tasks of each task's mean score: every task counts the same."""
        return float(np.mean([result.normalized_score_mean for result in self.tasks]))

    @property
    def normalized_score_iqm(self) -> float:
        """Interquartile mean of the tasks' mean scores: the lowest and highest quarter left out."""
        scores = [result.normalized_score_mean for result in self.tasks]
        return float(stats.trim_mean(scores, 0.25))

    def normalized_score_interval(self) -> tuple[float, float] | None:
        """Bootstrap interval of `normalized_score_mean` over the episodes of these tasks."""
        return bootstrap_interval([result.normalized_scores for result in self.tasks])

    def to_rich_table(self) -> Table:
        """Return the table for the screen: a row per task and one for their mean."""
        table = Table(title=f"protocol: {self.protocol}")
        table.add_column("task", no_wrap=True)
        for name in ("episodes", "return", "length", "score", f"{CONFIDENCE:.0%} interval"):
            table.add_column(name, justify="right")
        for result in self.tasks:
            spread = f" ± {result.return_std:.1f}" if result.episodes > 1 else ""
            table.add_row(
                result.task,
                str(result.episodes),
                f"{result.return_mean:.1f}{spread}",
                f"{result.length_mean:.0f}",
                f"{result.normalized_score_mean:.3f}",
                _format_interval(result.normalized_score_interval()),
            )
        table.add_section()
        table.add_row(
            f"mean of {len(self.tasks)} task{'s' if len(self.tasks) > 1 else ''}",
            str(sum(result.episodes for result in self.tasks)),
            "",
            "",
            f"{self.normalized_score_mean:.3f}",
            _format_interval(self.normalized_score_interval()),
        )
        table.add_row("interquartile mean", "", "", "", f"{self.normalized_score_iqm:.3f}", "")
        return table

    def to_metrics_table(self) -> Table | None:
        """Return the table of the tasks' metrics, a row for each; None if no task has any."""
        if not any(result.info for result in self.tasks):
            return None
        table = Table(title="metrics of the environments")
        table.add_column("task", no_wrap=True)
        table.add_column("metric", no_wrap=True)
        table.add_column("mean", justify="right")
        table.add_column("episodes", justify="right")
        for result in self.tasks:
            for name, values in result.info.items():
                mean = result.info_means.get(name)
                reported = sum(value is not None for value in values)
                table.add_row(
                    result.task, name, "n/a" if mean is None else f"{mean:.3f}", str(reported)
                )
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values: each episode, the means and the intervals."""
        return {
            "protocol": self.protocol,
            "normalized_score_mean": self.normalized_score_mean,
            "normalized_score_interval": self.normalized_score_interval(),
            "normalized_score_iqm": self.normalized_score_iqm,
            "confidence": CONFIDENCE,
            "tasks": [
                {
                    "task": result.task,
                    "return_mean": result.return_mean,
                    "return_std": result.return_std,
                    "length_mean": result.length_mean,
                    "physics_errors": result.physics_errors,
                    "env_failures": result.env_failures,
                    "normalized_score_mean": result.normalized_score_mean,
                    "normalized_score_interval": result.normalized_score_interval(),
                    "returns": [float(x) for x in result.returns],
                    "lengths": [int(x) for x in result.lengths],
                    "normalized_scores": [float(x) for x in result.normalized_scores],
                    "info": {
                        name: {"mean": result.info_means.get(name), "values": list(values)}
                        for name, values in result.info.items()
                    },
                }
                for result in self.tasks
            ],
        }


def bootstrap_interval(
    samples: Sequence[Sequence[float]], *, num_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean of the samples' means.

    Resamples inside each sample, so the samples (tasks) stay equally weighted. The interval covers
    the spread between episodes of one checkpoint, not that between training runs.

    Args:
        samples: T lists of numbers, of any lengths.
        num_resamples: Bootstrap resamples.
        seed: Seed of the resampling: the same numbers give the same interval.

    Returns:
        Lower and upper bound of the 95 % interval, or None where a sample has a single number,
        whose spread is unknown.
    """
    if any(len(sample) < 2 for sample in samples):
        return None

    def mean_of_means(*data: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean([np.mean(sample, axis=axis) for sample in data], axis=0)

    interval = stats.bootstrap(
        [np.asarray(sample, dtype=np.float64) for sample in samples],
        mean_of_means,
        n_resamples=num_resamples,
        batch=1000,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _format_interval(interval: tuple[float, float] | None) -> str:
    return "n/a" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"
