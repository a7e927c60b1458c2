"""`PadTask`: gives every task the same observation and action space, by padding.

Shape legend: T tasks, D padded observation dim, A padded action dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rllib_ezm.tasks.failure import (
    ENV_FAILURES,
    ENVIRONMENT_ERRORS,
    OLD_API,
    EnvironmentFailedError,
    environment_failed,
)
from rllib_ezm.tasks.wrappers import ActionRepeat, IgnoreTermination, scalar_reward
from rllib_ezm.utils.spaces import TaskSpaces

PaddedObs = dict[str, Any]

PHYSICS_ERROR = "physics_error"
"""Info key, True at a step whose simulation broke down: see `PadTask` and `GuardedMujocoEnv`."""

INFO_METRIC = "info/"
"""Prefix of the info keys, at the last step of an episode, that hold its `info_metrics`."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def padded_spaces(
    num_tasks: int, obs_dim: int, action_dim: int
) -> tuple[gym.spaces.Dict, gym.spaces.Box]:
    """Returns the observation and the action space that all padded tasks share.

    Returns:
        Dict(obs=Box (D,) float32, task_id=Discrete(T), action_mask=Box(0, 1, (A,)) float32), and
        Box(-1, 1, (A,)) float32.
    """
    observation_space = gym.spaces.Dict(
        {
            "obs": gym.spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32),
            "task_id": gym.spaces.Discrete(num_tasks),
            "action_mask": gym.spaces.Box(0.0, 1.0, (action_dim,), np.float32),
        }
    )
    return observation_space, gym.spaces.Box(-1.0, 1.0, (action_dim,), np.float32)


def task_spaces(env: gym.Env[Any, Any], name: str) -> TaskSpaces:
    """Returns an environment's own spaces as plain data, if it can be padded at all.

    Raises:
        ValueError: If the observation is neither a Box nor a Dict of Boxes, or the action not a
            bounded float Box.
    """
    obs_space, action_space = env.observation_space, env.action_space
    parts = _parts(obs_space)
    if not parts or not all(isinstance(part, gym.spaces.Box) for part in parts.values()):
        raise ValueError(
            f"Task {name!r}: the observation space must be a Box, or a Dict of Boxes (of any "
            f"shapes; they are flattened), got {obs_space}. Wrap the environment in "
            "gymnasium.wrappers.FlattenObservation."
        )
    if not isinstance(action_space, gym.spaces.Box):
        raise ValueError(
            f"Task {name!r}: the action space must be a Box, got {action_space}. Discrete actions "
            "are out of scope: choose a task with continuous actions."
        )
    if not np.issubdtype(action_space.dtype, np.floating) or not action_space.is_bounded():
        raise ValueError(
            f"Task {name!r}: the action space must be a float Box with finite bounds, got "
            f"{action_space}. Give it bounds of your own, e.g. gymnasium.wrappers.TransformAction("
            "env, lambda action: action, gymnasium.spaces.Box(-1.0, 1.0, env.action_space.shape))."
        )
    if (action_space.low > action_space.high).any():
        raise ValueError(
            f"Task {name!r}: the action space has lower bounds above its upper bounds: "
            f"low {action_space.low}, high {action_space.high}."
        )
    low, high = (np.ravel(x).astype(np.float64) for x in (action_space.low, action_space.high))
    return TaskSpaces(
        {key: part.shape or () for key, part in parts.items()},
        action_space.shape,
        tuple(low.tolist()),
        tuple(high.tolist()),
        np.dtype(action_space.dtype).name,
    )


def _parts(space: gym.Space[Any]) -> dict[str, gym.Space[Any]]:
    """The spaces of a Dict by key, in its order; any other space by the key ""."""
    return dict(space.spaces) if isinstance(space, gym.spaces.Dict) else {"": space}


def own_info(info: dict[str, Any]) -> dict[str, Any]:
    """A copy of an environment's info, without the keys that are ours."""
    return {
        key: value
        for key, value in info.items()
        if key != ENV_FAILURES and not str(key).startswith(INFO_METRIC)
    }


class PadTask(gym.Wrapper[PaddedObs, NDArray[np.float32], Any, Any]):
    """One task, padded to the dims of its task set.

    * Observation: `obs` (D,), the task's own observation flattened (a Dict's in the order of its
      keys), then zeros; `task_id`; `action_mask` (A,), 1 on the task's own action dims. Own
      observations must have exactly the shapes of their space.
    * Action (A,) in [-1, 1]: the task's own dims are clipped to [-1, 1] and scaled to the
      environment's bounds; padded dims are ignored.
    * Reward: the sum over the `action_repeat` simulator steps of a decision, unscaled.
    * A step whose observation or reward is not finite (in float32) is one whose simulation broke
      down: it keeps the last good observation, gives reward 0, is truncated, and has
      `info["physics_error"] = True`. So nothing that is not finite leaves this class.
    * Info is the environment's own. The last step of an episode has the `info_metrics` as well, as
      `info["info/NAME"]`.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        task_id: int,
        num_tasks: int,
        obs_dim: int,
        action_dim: int,
        termination: str = "respect",
        *,
        action_repeat: int = 1,
        name: str | None = None,
        info_metrics: Sequence[str] = (),
    ) -> None:
        """Wraps `env`.

        Args:
            env: Environment with a Box observation, or a Dict of them, and a bounded float Box
                action.
            task_id: Index of the task in its set, 0 <= task_id < num_tasks.
            num_tasks: T.
            obs_dim: D, at least the environment's flat observation dim.
            action_dim: A, at least the environment's flat action dim.
            termination: "respect", or "ignore": `terminated` is dropped and the episode goes on
                until it is truncated.
            action_repeat: Simulator steps per decision.
            name: Task name for error messages.
            info_metrics: See `TaskSpec`.

        Raises:
            ValueError: If an argument does not fit the environment.
        """
        self.name = name or f"task {task_id}"
        self._own = own = task_spaces(env, self.name)
        if not 0 <= task_id < num_tasks:
            raise ValueError(f"{self.name}: task_id {task_id} is not in [0, {num_tasks}).")
        if own.obs_dim > obs_dim or own.action_dim > action_dim:
            raise ValueError(
                f"{self.name}: its observation dim {own.obs_dim} and action dim {own.action_dim} "
                f"exceed the padded dims {obs_dim} and {action_dim}; pad to the largest task."
            )
        if termination not in ("respect", "ignore"):
            raise ValueError(f'termination must be "respect" or "ignore", got {termination!r}.')
        if termination == "ignore":
            env = IgnoreTermination(env)
        if action_repeat != 1:
            env = ActionRepeat(env, action_repeat)
        super().__init__(env)
        self.observation_space, self.action_space = padded_spaces(num_tasks, obs_dim, action_dim)
        self.task_id = task_id
        self.own_obs_dim = own.obs_dim
        self.own_action_dim = own.action_dim
        self._action_mask = np.zeros(action_dim, dtype=np.float32)
        self._action_mask[: own.action_dim] = 1.0
        self._last_obs = np.zeros(obs_dim, dtype=np.float32)
        self._info_metrics = info_metrics
        self._metrics: dict[str, float] = {}
        self.breakdown = "the environment said so"
        """What was not finite when the simulation last broke down."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[PaddedObs, dict[str, Any]]:
        """Starts an episode.

        Raises:
            EnvironmentFailedError: If the environment raised an exception, or its first observation
                is not finite.
        """
        try:
            returned: Any = self.env.reset(seed=seed, options=options)
            if not (isinstance(returned, tuple) and len(returned) == 2):
                raise TypeError(f"it returned {type(returned).__name__}; {OLD_API}")
            padded, kept = self._pad(returned[0]), own_info(returned[1])
        except ENVIRONMENT_ERRORS as error:
            raise environment_failed(self.name, "reset()", error) from error
        if not np.isfinite(padded).all():
            bad = np.flatnonzero(~np.isfinite(padded)).tolist()
            raise EnvironmentFailedError(
                f"{self.name}: reset() gave a non-finite observation in dims {bad}"
            )
        self._last_obs = padded
        self._metrics = {}
        return self._to_dict(padded), kept

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[PaddedObs, float, bool, bool, dict[str, Any]]:
        """Runs one decision.

        Raises:
            ValueError: If the task's own action dims are not finite.
            EnvironmentFailedError: If the environment raised an exception, or one of the
                `info_metrics` is no number.
        """
        try:
            own_action = self._own.to_bounds(action)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
        try:
            obs, reward, terminated, truncated, info = self.env.step(own_action)
            padded, reward, kept = self._pad(obs), scalar_reward(reward), own_info(info)
        except ENVIRONMENT_ERRORS as error:
            raise environment_failed(self.name, "step()", error) from error
        if not (abs(reward) <= _FLOAT32_MAX and np.isfinite(padded).all()):
            bad = np.flatnonzero(~np.isfinite(padded)).tolist()
            self.breakdown = f"reward {reward}, observation dims that are not finite: {bad}"
            return self.cut_short({PHYSICS_ERROR: True})
        self._last_obs = padded
        if self._info_metrics and not kept.get(PHYSICS_ERROR):
            self._read_metrics(kept)
        if terminated or truncated:
            kept |= self._metrics
        return self._to_dict(padded), reward, bool(terminated), bool(truncated), kept

    def cut_short(
        self, info: dict[str, Any]
    ) -> tuple[PaddedObs, float, bool, bool, dict[str, Any]]:
        """The result of a step that broke down: the last good observation, reward 0, truncated."""
        return self._to_dict(self._last_obs), 0.0, False, True, info | self._metrics

    def _read_metrics(self, info: dict[str, Any]) -> None:
        """Remembers the latest value of each metric that this step reports."""
        for name in self._info_metrics:
            value = info.get(name)
            if value is None:
                continue
            plain = isinstance(value, (bool, int, float, np.generic, np.ndarray))
            number = np.asarray(value if plain else None)
            if number.size != 1 or number.dtype.kind not in "biuf":
                raise EnvironmentFailedError(
                    f"{self.name}: info[{name!r}] is no number but {value!r}; take it out of the "
                    "task's info_metrics"
                )
            if np.isfinite(number).all():
                self._metrics[INFO_METRIC + name] = float(number.item())

    def _pad(self, obs: Any) -> NDArray[np.float32]:
        """Returns a copy of the task's own observation, flattened and padded to (D,)."""
        return self._own.flatten(obs, len(self._last_obs))

    def _to_dict(self, padded: NDArray[np.float32]) -> PaddedObs:
        """Returns the observation dict of (D,); the caller may change it."""
        return {
            "obs": padded.copy(),
            "task_id": np.int64(self.task_id),
            "action_mask": self._action_mask.copy(),
        }
