"""Per-task bookkeeping of collected episodes: returns, env steps, normalized scores."""

from __future__ import annotations

from collections import deque
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
    ) -> None:
        """Add a chunk of an episode: rewards of its L decisions [L], and what went wrong."""
        self.env_steps[task_id] += len(rewards)
        self.physics_errors[task_id] += physics_error
        self.env_failures[task_id] += env_failures
        total = self._ongoing.pop(episode_id, 0.0) + float(np.sum(rewards))
        if done:
            self.episodes[task_id] += 1
            self.returns[task_id].append(total)
        else:
            self._ongoing[episode_id] = total

    def scores(self) -> list[float | None]:
        """Normalized mean return of each task (eq. 13), None before its first episode."""
        return [
            spec.normalized_score(float(np.mean(returns))) if returns else None
            for spec, returns in zip(self.specs, self.returns, strict=True)
        ]

    def score_mean(self) -> float:
        """Mean normalized score over the tasks; a task without an episode yet counts 0."""
        return float(np.mean([score or 0.0 for score in self.scores()]))

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
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore `get_state()`'s result; episodes that were under way then are not resumed."""
        self.env_steps = np.asarray(state["env_steps"]).copy()
        self.episodes = np.asarray(state["episodes"]).copy()
        self.physics_errors = np.asarray(state["physics_errors"]).copy()
        self.env_failures = np.asarray(state["env_failures"]).copy()
        self.returns = [
            deque(values, maxlen=old.maxlen)
            for values, old in zip(state["returns"], self.returns, strict=True)
        ]
        self.abandon_ongoing()
