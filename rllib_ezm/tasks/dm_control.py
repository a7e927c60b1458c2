"""Tasks "dmc:<domain>-<task>": the DeepMind Control suite as Gymnasium environments.

`dm_control` is imported when the first task is resolved or built, and no OpenGL context is made
unless frames are asked for.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rllib_ezm.tasks.rendering import check_render_mode, draw_frame
from rllib_ezm.tasks.spec import TaskSpec, register_prefix

# MuJoCo has no infinity for an unlimited actuator; dm_control writes this bound instead.
_UNLIMITED = 1e10


class DMControlEnv(gym.Env[NDArray[np.float32], NDArray[np.floating]]):
    """One task of dm_control's suite, with a flat float32 observation.

    * Observation: Box (D,), the task's observations flattened and concatenated in its own order.
    * Action: Box (A,), the task's own bounds; an unlimited actuator has infinite bounds.
    * `terminated`: dm_control ended the episode with discount 0 (in the suite: lqr only).
      `truncated`: it ended with discount 1, i.e. at its own time limit.
    * Seeding: `reset(seed=s)` fixes this and all following episodes. Where the suite draws the
      model itself at random (lqr), every instance gets the same model.
    * Pickling ships the constructor arguments; a copy starts afresh and needs a `reset`.
    """

    def __init__(
        self,
        domain: str,
        task: str,
        *,
        own_time_limit: bool = True,
        render_mode: str | None = None,
        render_size: tuple[int, int] = (240, 320),
    ) -> None:
        """Loads the task.

        Args:
            domain: Suite domain, e.g. "walker".
            task: Task of that domain, e.g. "run".
            own_time_limit: Truncate at the suite's limit (1000 steps); False: never.
            render_mode: None, or "rgb_array" for frames from `render`.
            render_size: Height and width of a frame, in pixels.

        Raises:
            ImportError: If dm_control is missing.
            ValueError: If the task or the render mode does not exist.
        """
        self.render_mode = check_render_mode(render_mode)
        self._constructor = functools.partial(
            type(self),
            domain,
            task,
            own_time_limit=own_time_limit,
            render_mode=render_mode,
            render_size=render_size,
        )
        self._name = f"dmc:{domain}-{task}"
        self._render_size = render_size
        self._seeded = False
        task_kwargs: dict[str, Any] = {"random": np.random.RandomState(0)}
        if not own_time_limit:
            task_kwargs["time_limit"] = float("inf")
        self._env = _import_suite().load(domain, task, task_kwargs=task_kwargs)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": round(1.0 / self._env.control_timestep()),
        }
        if render_mode is None:
            _forbid_rendering(self._env.physics)
        sizes = [int(np.prod(spec.shape)) for spec in self._env.observation_spec().values()]
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (sum(sizes),), np.float32)
        self.action_space = _action_space(self._env.action_spec())

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Starts an episode; with a seed, this one and those after it are deterministic."""
        super().reset(seed=seed, options=options)
        if seed is not None or not self._seeded:
            self._env.task.random.seed(self.np_random.integers(2**32, dtype=np.uint32))
            self._seeded = True
        return _flatten(self._env.reset().observation), {}

    def step(
        self, action: NDArray[np.floating]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Advances one control step.

        Raises:
            ValueError: If the action is not finite.
            RuntimeError: If there is no running episode.
        """
        action = np.asarray(action, dtype=np.float64)
        if not np.isfinite(action).all():
            raise ValueError(f"{self._name}: the action must be finite, got {action}.")
        timestep = self._env.step(action)
        if timestep.first():
            raise RuntimeError(f"{self._name}: no running episode; call reset() first.")
        ended = timestep.last()
        terminated = bool(ended and timestep.discount == 0.0)
        obs = _flatten(timestep.observation)
        return obs, float(timestep.reward), terminated, bool(ended and not terminated), {}

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Returns a frame (height, width, 3), or None without a render mode.

        Raises:
            RuntimeError: If no OpenGL backend works.
        """
        if self.render_mode is None:
            return None
        height, width = self._render_size
        draw = functools.partial(self._env.physics.render, height=height, width=width, camera_id=0)
        return draw_frame(self._name, draw)

    def close(self) -> None:
        """Frees the simulation and any OpenGL context."""
        self._env.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as the call that made this environment."""
        return self._constructor, ()


def _forbid_rendering(physics: Any) -> None:
    """Makes `physics.contexts` None for this instance, so that nothing can open an OpenGL context.

    dm_control opens one whenever that property is read, and quadruped-escape reads it in every
    reset, which fails on a machine without a display.
    """
    cls = type(physics)
    physics.__class__ = type(cls.__name__, (cls,), {"contexts": None})


def _action_space(spec: Any) -> gym.spaces.Box:
    """Returns the Box of a dm_env BoundedArray, with true infinities."""
    low = np.where(spec.minimum <= -_UNLIMITED, -np.inf, spec.minimum)
    high = np.where(spec.maximum >= _UNLIMITED, np.inf, spec.maximum)
    return gym.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def _flatten(observation: Mapping[str, Any]) -> NDArray[np.float32]:
    """Returns all entries as one float32 vector (D,)."""
    return np.concatenate([np.ravel(part) for part in observation.values()]).astype(np.float32)


def _import_suite() -> Any:
    """Imports `dm_control.suite`, which looks for a display that we do not need."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*DISPLAY environment variable")
            return importlib.import_module("dm_control.suite")
    except ImportError as error:
        raise ImportError(
            f'Tasks "dmc:..." need dm_control, which cannot be imported ({error}). '
            "Install it: pip install 'dm-control>=1.0.50' 'mujoco>=3.17,<4'"
        ) from error


def _resolve(name: str) -> TaskSpec | None:
    """Returns the spec of "<domain>-<task>". Suite rewards are in [0, 1], so success is 1000."""
    domain, _, task = name.partition("-")
    if (domain, task) not in _import_suite().ALL_TASKS:
        return None
    return TaskSpec(
        name=f"dmc:{name}",
        make=functools.partial(DMControlEnv, domain, task, own_time_limit=False),
        random_score=0.0,
        success_score=1000.0,
        max_episode_steps=1000,
    )


def _names() -> list[str]:
    """Returns the names of the whole suite; none if dm_control is not installed."""
    if importlib.util.find_spec("dm_control") is None:
        return []
    return [f"dmc:{domain}-{task}" for domain, task in _import_suite().ALL_TASKS]


register_prefix("dmc", _resolve, _names)
