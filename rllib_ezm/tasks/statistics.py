"""Per-task bookkeeping of collected episodes: returns, env steps, scores, `info` metrics."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rllib_ezm.tasks.spec import TaskSpec


class TaskStatistics:
    """Counts env steps and keeps the last returns of each task.

    Args:
        specs: The tasks, in order of their ids.
        window: Number of latest episodes a mean return covers.
    """

    def __init__(self, specs: tuple[TaskSpec, ...], window: int) -> None:
        self.specs = specs
        self.env_steps = np.zeros(len(specs), dtype=np.int64)
        self.episodes = np.zeros(len(specs), dtype=np.int64)
        self.physics_errors = np.zeros(len(specs), dtype=np.int64)
        self.env_failures = np.zeros(len(specs), dtype=np.int64)
        self.returns = [deque[float](maxlen=window) for _ in specs]
        self.info = [
            {name: deque[float | None](maxlen=window) for name in spec.info_metrics}
            for spec in specs
        ]
        self._ongoing: dict[str, float] = {}

    def add(
        self,
        task_id: int,
        episode_id: str,
        rewards: np.ndarray,
        *,
        done: bool,
        physics_error: bool = False,
        env_failures: int = 0,
        info: Mapping[str, float] | None = None,
    ) -> None:
        """Add a chunk of an episode: rewards of its L decisions [L], and what went wrong.

        The last chunk also has the episode's `info_metrics`, as far as they were reported.
        """
        self.env_steps[task_id] += len(rewards)
        self.physics_errors[task_id] += physics_error
        self.env_failures[task_id] += env_failures
        total = self._ongoing.pop(episode_id, 0.0) + float(np.sum(rewards))
        if done:
            self.episodes[task_id] += 1
            self.returns[task_id].append(total)
            for name, values in self.info[task_id].items():
                values.append((info or {}).get(name))
        else:
            self._ongoing[episode_id] = total

    def scores(self) -> list[float | None]:
        """Normalized mean return of each task (eq. 13), None before its first episode."""
        return [
            spec.normalized_score(float(np.mean(returns))) if returns else None
            for spec, returns in zip(self.specs, self.returns, strict=True)
        ]

    def info_means(self, task_id: int) -> dict[str, float]:
        """Mean of each metric over the task's latest episodes that reported it, if any did."""
        reported = {
            name: [value for value in values if value is not None]
            for name, values in self.info[task_id].items()
        }
        return {name: float(np.mean(values)) for name, values in reported.items() if values}

    def score_mean(self) -> float | None:
        """Mean normalized score over the tasks; None before every task has finished an episode."""
        scores = [score for score in self.scores() if score is not None]
        return float(np.mean(scores)) if len(scores) == len(self.specs) else None

    def abandon_ongoing(self) -> None:
        """Forget the returns of episodes under way; their env steps stay counted."""
        self._ongoing.clear()

    def get_state(self) -> dict[str, Any]:
        """Everything needed to go on after a restart, as plain Python and numpy objects."""
        return {
            "env_steps": self.env_steps.copy(),
            "episodes": self.episodes.copy(),
            "physics_errors": self.physics_errors.copy(),
            "env_failures": self.env_failures.copy(),
            "returns": [list(returns) for returns in self.returns],
            "info": [
                {name: list(values) for name, values in metrics.items()} for metrics in self.info
            ],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore `get_state()`'s result; episodes that were under way then are not resumed.

        A metric that the state lacks starts without episodes.
        """
        self.env_steps = np.asarray(state["env_steps"]).copy()
        self.episodes = np.asarray(state["episodes"]).copy()
        self.physics_errors = np.asarray(state["physics_errors"]).copy()
        self.env_failures = np.asarray(state["env_failures"]).copy()
        self.returns = [
            deque(values, maxlen=old.maxlen)
            for values, old in zip(state["returns"], self.returns, strict=True)
        ]
        for metrics, stored in zip(
            self.info, state.get("info", [{}] * len(self.info)), strict=True
        ):
            for name, values in metrics.items():
                values.clear()
                values.extend(stored.get(name, []))
        self.abandon_ongoing()


def reorder_statistics(state: Mapping[str, Any], source: Sequence[int]) -> dict[str, Any]:
    """A state of `TaskStatistics` as it would be, had its tasks had another order.

    Args:
        state: Everything in it is per task.
        source: For each task its id in `state`.
    """
    return {name: [rows[task_id] for task_id in source] for name, rows in state.items()}
