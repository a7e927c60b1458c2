"""One slot of a vector environment: plays any task of a set, one episode at a time."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np

from rllib_ezm.tasks.failure import (
    ENV_FAILURES,
    MAX_CONSECUTIVE_FAILURES,
    EnvironmentFailedError,
    EnvironmentTimeoutError,
    environment_failed,
)
from rllib_ezm.tasks.multitask import TaskSet
from rllib_ezm.tasks.padding import PHYSICS_ERROR, PadTask
from rllib_ezm.tasks.pool import EnvPool
from rllib_ezm.tasks.watchdog import BUILDING, CLOSE, RESET, STEP, Watchdog

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_STEPS_WITHOUT_LIMIT = 10_000
"""Simulator steps after which an episode of a task without `max_episode_steps` is an error.

Whether an environment ends its own episodes cannot be known before. The longest time limit of
Gymnasium's, DeepMind Control's and HumanoidBench's tasks is 2,000.
"""


class TaskSlot(gym.Env[dict[str, Any], np.ndarray]):
    """Switches to the task `next_task` at each reset, with an environment from its pool.

    Every episode gets a seed of its own from the slot's generator, so a slot is reproducible from
    one `reset(seed=...)`.

    An environment that raises an exception or takes too long is closed, and another one built for
    the next episode; the traceback is logged. If it was in `step`, the episode is truncated there,
    with the last good observation, reward 0 and `info["env_failures"] = 1`. If it was in `reset` or
    in building it, the slot tries again with another seed and reports the number of failures in
    that reset's info.

    Two faults are errors whatever happens next: as many episodes in a row as failures may be, that
    all broke down in their first decision, and an episode without end, see
    `MAX_STEPS_WITHOUT_LIMIT`.

    Args:
        tasks: The task set.
        task_id: Task of the first episode.
        termination: "respect" or "ignore", see `PadTask`.
        render_mode: Passed to the tasks' environments.
        pool: Environments shared with other slots, of the same tasks and settings; None: its own.
        max_consecutive_failures: So many failures of a task's environments, without an episode
            that ended otherwise in between, are an error.
        watchdog: Limits the time of each call; None: any time.
    """

    def __init__(
        self,
        tasks: TaskSet,
        task_id: int,
        termination: str = "respect",
        render_mode: str | None = None,
        pool: EnvPool | None = None,
        max_consecutive_failures: int = MAX_CONSECUTIVE_FAILURES,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.render_mode = render_mode
        self.next_task = task_id
        self.observation_space = tasks.observation_space
        self.action_space = tasks.action_space
        self._pool = pool or EnvPool(tasks, termination, render_mode)
        self._current: PadTask | None = None
        self._tasks = tasks
        self._max_failures = max_consecutive_failures
        self._failures: Counter[int] = Counter()
        self._broken_starts: Counter[int] = Counter()
        self._decisions = 0
        self._guard = (watchdog or Watchdog()).guard

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode of `next_task`.

        Raises:
            EnvironmentFailedError: Its environments failed too often in a row.
        """
        super().reset(seed=seed)
        self._decisions = 0
        if self._current is not None and self._current.task_id != self.next_task:
            self._pool.release(self._current)
            self._current = None
        failures = 0
        while True:
            try:
                obs, info = self._start_episode(options)
            except EnvironmentFailedError as error:
                failures += 1
                self._recover(self.next_task, error)
            else:
                return obs, {**info, ENV_FAILURES: failures} if failures else info

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One decision in the current task.

        Raises:
            EnvironmentFailedError: Its environments failed too often in a row, or its episode does
                not end.
        """
        env = self._playing()
        self._decisions += 1
        try:
            result = self._call(env.task_id, STEP, env.step, action)
        except EnvironmentFailedError as error:
            self._recover(env.task_id, error)
            return env.cut_short({ENV_FAILURES: 1})
        if result[2] or result[3]:
            del self._failures[env.task_id]
            self._check_start(env, result[4])
        else:
            self._check_end(env)
        return result

    def _check_start(self, env: PadTask, info: dict[str, Any]) -> None:
        """Counts episodes in a row that broke down in their first decision."""
        if not (info.get(PHYSICS_ERROR) and self._decisions == 1):
            del self._broken_starts[env.task_id]
            return
        self._broken_starts[env.task_id] += 1
        if self._broken_starts[env.task_id] >= self._max_failures:
            raise EnvironmentFailedError(
                f"{env.name}: {self._max_failures} episodes in a row (max_consecutive_env_failures "
                f"of .tasks(...)) broke down in their first decision ({env.breakdown}). Fix the "
                "environment: rewards and observations must be finite numbers."
            )

    def _check_end(self, env: PadTask) -> None:
        """Raises if an episode without a time limit seems to have no end."""
        spec = self._tasks.specs[env.task_id]
        if spec.max_episode_steps is not None:
            return
        if self._decisions * spec.action_repeat >= MAX_STEPS_WITHOUT_LIMIT:
            raise EnvironmentFailedError(
                f"{env.name}: an episode has not ended within {MAX_STEPS_WITHOUT_LIMIT} simulator "
                "steps, and the task has no time limit. Set its max_episode_steps, in "
                f'register_task(...) or as {{"name": {env.name!r}, "max_episode_steps": 1000}} in '
                ".tasks([...]); for longer episodes, to their length."
            )

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

    def _start_episode(self, options: dict[str, Any] | None) -> tuple[dict[str, Any], Any]:
        if self._current is None:
            try:
                self._current = self._call(
                    self.next_task, BUILDING, self._pool.take, self.next_task
                )
            except EnvironmentFailedError:
                raise
            except (Exception, SystemExit) as error:
                name = self._tasks.names[self.next_task]
                raise environment_failed(name, BUILDING, error) from error
        seed = int(self.np_random.integers(2**31 - 1))
        reset = functools.partial(self._current.reset, seed=seed, options=options)
        return self._call(self.next_task, RESET, reset)

    def _call(self, task_id: int, call: str, function: Callable[..., T], *args: Any) -> T:
        """`function(*args)` under the eye of the watchdog."""
        try:
            return self._guard(task_id, call, function, *args)
        except EnvironmentTimeoutError as error:
            raise environment_failed(self._tasks.names[task_id], call, error) from error

    def _recover(self, task_id: int, error: EnvironmentFailedError) -> None:
        """Gets rid of the environment that failed; raises if that happened too often."""
        self._failures[task_id] += 1
        failed, self._current = self._current, None
        if failed is not None:
            try:
                self._call(task_id, CLOSE, failed.close)
            except (Exception, SystemExit):
                logger.warning("%s: closing it failed as well", failed.name, exc_info=True)
        num_consecutive = self._failures[task_id]
        if num_consecutive >= self._max_failures:
            raise EnvironmentFailedError(
                f"{error}; failures in a row: {num_consecutive} (max_consecutive_env_failures="
                f"{self._max_failures} of .tasks(...)). Fix the environment, or raise that limit."
            ) from error
        logger.warning(
            "%s. Its environment is built again; failures in a row: %d, training ends at %d.",
            error,
            num_consecutive,
            self._max_failures,
            exc_info=error,
        )
