"""`TaskSet`: several tasks with common padded dims.

Shape legend: T tasks, D padded observation dim, A padded action dim.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rllib_ezm.tasks.padding import PadTask, padded_spaces, task_spaces
from rllib_ezm.tasks.spec import TaskSpec, resolve_task


@dataclasses.dataclass(frozen=True)
class TaskSet:
    """The tasks of one experiment, in order: a task's id is its position.

    Holds specs and dims only, no environment, so it is cheap to pickle and ship to workers. Build
    it with `task_set`.

    Attributes:
        specs: T specs.
        obs_dims: T flat observation dims, before padding.
        action_dims: T flat action dims, before padding.
    """

    specs: tuple[TaskSpec, ...]
    obs_dims: tuple[int, ...]
    action_dims: tuple[int, ...]

    @property
    def num_tasks(self) -> int:
        """T."""
        return len(self.specs)

    @property
    def obs_dim(self) -> int:
        """D, the largest observation dim."""
        return max(self.obs_dims)

    @property
    def action_dim(self) -> int:
        """A, the largest action dim."""
        return max(self.action_dims)

    @property
    def names(self) -> tuple[str, ...]:
        """T names."""
        return tuple(spec.name for spec in self.specs)

    @property
    def obs_mask(self) -> NDArray[np.float32]:
        """(T, D) float32, 1 on each task's own observation dims."""
        return _prefix_mask(self.obs_dims)

    @property
    def action_mask(self) -> NDArray[np.float32]:
        """(T, A) float32, 1 on each task's own action dims."""
        return _prefix_mask(self.action_dims)

    @property
    def observation_space(self) -> gym.spaces.Dict:
        """The observation space of every `make(...)`."""
        return padded_spaces(self.num_tasks, self.obs_dim, self.action_dim)[0]

    @property
    def action_space(self) -> gym.spaces.Box:
        """The action space of every `make(...)`."""
        return padded_spaces(self.num_tasks, self.obs_dim, self.action_dim)[1]

    def make(
        self, task_id: int, render_mode: str | None = None, termination: str = "respect"
    ) -> PadTask:
        """Returns a new padded environment of one task.

        Args:
            task_id: 0 <= task_id < T.
            render_mode: Passed to the task's factory unless None.
            termination: "respect" or "ignore", see `PadTask`.

        Raises:
            ValueError: If there is no such task, its environment has other dims than the task set,
                or terminations of a task without a time limit are to be ignored.
        """
        if not 0 <= task_id < self.num_tasks:
            raise ValueError(f"task_id {task_id} is not in [0, {self.num_tasks}).")
        spec = self.specs[task_id]
        if termination == "ignore" and spec.max_episode_steps is None:
            raise ValueError(
                f'Task {spec.name!r} has no time limit, so with termination="ignore" its episodes '
                "might never end: set its max_episode_steps."
            )
        env = spec.build(render_mode)
        own = task_spaces(env, spec.name)
        expected = self.obs_dims[task_id], self.action_dims[task_id]
        found = own.obs_dim, own.action_dim
        if found != expected:
            env.close()
            raise ValueError(
                f"Task {spec.name!r}: this environment has {found[0]} observation and {found[1]} "
                f"action dims, but {expected[0]} and {expected[1]} were read when the tasks were "
                "set. Its factory must build the same spaces every time and in every process; a "
                "task that has changed since needs a new TaskSpec."
            )
        return PadTask(
            env,
            task_id,
            self.num_tasks,
            self.obs_dim,
            self.action_dim,
            termination,
            action_repeat=spec.action_repeat,
            name=spec.name,
            info_metrics=spec.info_metrics,
        )


def task_set(tasks: Sequence[str | Mapping[str, Any] | TaskSpec]) -> TaskSet:
    """Resolves tasks and reads their dims.

    That builds an environment of each task given by name, and of each spec whose `dims` have not
    been read yet; the specs of a task set have them: `task_set(task_set(names).specs)` builds none.

    Args:
        tasks: Names, dicts or specs, see `resolve_task`. The order gives the task ids.

    Raises:
        ValueError: If the list is empty, a name is unknown or occurs twice, or a task's spaces
            cannot be padded.
    """
    specs = resolve_tasks(tasks)
    return TaskSet(
        specs,
        obs_dims=tuple(spec.dims[0] for spec in specs),
        action_dims=tuple(spec.dims[1] for spec in specs),
    )


def resolve_tasks(tasks: Sequence[str | Mapping[str, Any] | TaskSpec]) -> tuple[TaskSpec, ...]:
    """Returns the specs of several tasks, see `resolve_task`; builds no environment.

    Raises:
        ValueError: If the list is empty, or a name is unknown or occurs twice.
    """
    if isinstance(tasks, (str, Mapping, TaskSpec)):
        raise ValueError(f"Tasks are given as a list; write [{tasks!r}].")
    specs = tuple(resolve_task(task) for task in tasks)
    if not specs:
        raise ValueError("A task set needs at least one task.")
    repeated = [name for name, count in Counter(s.name for s in specs).items() if count > 1]
    if repeated:
        raise ValueError(
            f"Tasks occur more than once: {', '.join(repeated)}. List each once; several copies of "
            "a task are `envs_per_task`, a variant needs its own name "
            "(dataclasses.replace(spec, name=...))."
        )
    return specs


def _prefix_mask(dims: Sequence[int]) -> NDArray[np.float32]:
    """Returns (len(dims), max(dims)) with ones in the first dims[i] places of row i."""
    return (np.arange(max(dims)) < np.asarray(dims)[:, None]).astype(np.float32)
