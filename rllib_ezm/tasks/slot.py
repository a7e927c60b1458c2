"""One slot of a vector environment: plays any task of a set, one episode at a time."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rllib_ezm.tasks.multitask import TaskSet
from rllib_ezm.tasks.padding import PadTask
from rllib_ezm.tasks.pool import EnvPool


class TaskSlot(gym.Env[dict[str, Any], np.ndarray]):
    """Switches to the task `next_task` at each reset, with an environment from its pool.

    Every episode gets a seed of its own from the slot's generator, so a slot is reproducible from
    one `reset(seed=...)`.

    Args:
        tasks: The task set.
        task_id: Task of the first episode.
        termination: "respect" or "ignore", see `PadTask`.
        render_mode: Passed to the tasks' environments.
        pool: Environments shared with other slots, of the same tasks and settings; None: its own.
    """

    def __init__(
        self,
        tasks: TaskSet,
        task_id: int,
        termination: str = "respect",
        render_mode: str | None = None,
        pool: EnvPool | None = None,
    ) -> None:
        self.render_mode = render_mode
        self.next_task = task_id
        self.observation_space = tasks.observation_space
        self.action_space = tasks.action_space
        self._pool = pool or EnvPool(tasks, termination, render_mode)
        self._current: PadTask | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode of `next_task`."""
        super().reset(seed=seed)
        if self._current is not None and self._current.task_id != self.next_task:
            self._pool.give_back(self._current)
            self._current = None
        if self._current is None:
            self._current = self._pool.take(self.next_task)
        return self._current.reset(seed=int(self.np_random.integers(2**31 - 1)), options=options)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One decision in the current task."""
        return self._playing().step(action)

    def render(self) -> Any:
        """The current task's frame."""
        return self._playing().render()

    def close(self) -> None:
        """Closes the environment being played, and the idle ones of the pool."""
        if self._current is not None:
            self._current.close()
        self._current = None
        self._pool.close()

    def _playing(self) -> PadTask:
        if self._current is None:
            raise RuntimeError("Call reset() before step() or render().")
        return self._current
