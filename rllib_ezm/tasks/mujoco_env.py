"""`GuardedMujocoEnv`: a Gymnasium MuJoCo environment safe to train on for millions of steps."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rllib_ezm.tasks.padding import PHYSICS_ERROR
from rllib_ezm.tasks.rendering import check_render_mode, draw_frame


class GuardedMujocoEnv(gym.Env[NDArray[np.float32], NDArray[np.floating]]):
    """A `gymnasium.envs.mujoco.MujocoEnv` with float32 observations that survives instability.

    * Observation: Box (D,) float32. Action: Box (A,), the environment's own bounds; clipped.
    * Instability: MuJoCo answers a state that is not finite or absurdly large by going back to the
      model's initial state, silently, and may pay a full reward for that step. Here such a step
      keeps the last good observation, gives reward 0, is truncated, and has
      `info["physics_error"] = True`, just as `PadTask` has it for numbers that are not finite.
    * Seeding: `reset(seed=s)` fixes this and all following episodes, also of an environment that
      draws from numpy's global generator in its reset; that generator is left as it was.
    * Rendering: an OpenGL context is made by the first `render()`, never before.
    * Pickling ships the constructor arguments; a copy starts afresh and needs a `reset`.
    """

    def __init__(
        self, make: Callable[[], Any], name: str, *, render_mode: str | None = None
    ) -> None:
        """Builds the environment.

        Args:
            make: Returns a new `MujocoEnv` without render mode; picklable if this is to be.
            name: Name of the task in error messages.
            render_mode: None, or "rgb_array" for frames from `render`.

        Raises:
            ValueError: If the render mode does not exist.
        """
        self.render_mode = check_render_mode(render_mode)
        self._constructor: Callable[[], Any] = functools.partial(
            type(self), make, name, render_mode=render_mode
        )
        self._name = name
        self._env = make()
        self._env.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(1.0 / self._env.dt)}
        self.observation_space = gym.spaces.Box(
            -np.inf, np.inf, self._env.observation_space.shape, np.float32
        )
        bounds: gym.spaces.Box = self._env.action_space
        self.action_space = gym.spaces.Box(
            bounds.low.astype(np.float32), bounds.high.astype(np.float32), dtype=np.float32
        )
        warning = importlib.import_module("mujoco").mjtWarning
        self._bad_state = [
            int(kind)
            for kind in (warning.mjWARN_BADQPOS, warning.mjWARN_BADQVEL, warning.mjWARN_BADQACC)
        ]
        self._last_obs: NDArray[np.float32] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Starts an episode; with a seed, this one and those after it are deterministic."""
        super().reset(seed=seed, options=options)
        episode_seed = int(self.np_random.integers(2**31 - 1))
        with _global_numpy_seed(episode_seed):
            obs, info = self._start_episode(episode_seed)
        self._last_obs = obs.astype(np.float32)
        return self._last_obs.copy(), info

    def step(
        self, action: NDArray[np.floating]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Advances one control step.

        Raises:
            ValueError: If the action is not finite.
            RuntimeError: If there was no reset.
        """
        if self._last_obs is None:
            raise RuntimeError(f"{self._name}: no running episode; call reset() first.")
        action = np.asarray(action, dtype=np.float64)
        if not np.isfinite(action).all():
            raise ValueError(f"{self._name}: the action must be finite, got {action}.")
        action = np.clip(action, self.action_space.low, self.action_space.high)  # type: ignore[attr-defined]
        obs, reward, terminated, truncated, info = self._env.step(action)
        if self._went_back():
            return self._last_obs.copy(), 0.0, False, True, {**info, PHYSICS_ERROR: True}
        self._last_obs = obs.astype(np.float32)
        return self._last_obs.copy(), float(reward), bool(terminated), bool(truncated), info

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Returns a frame (height, width, 3), or None without a render mode.

        Raises:
            RuntimeError: If no OpenGL backend works.
        """
        if self.render_mode is None:
            return None
        return draw_frame(self._name, self._env.render)

    def close(self) -> None:
        """Frees the simulation and any OpenGL context; nothing else can be called after it.

        HumanoidBench's environment, robot and task hold each other. Without cutting that here, a
        model of 55 MB stays until Python's collector looks at its oldest objects.
        """
        if vars(self._env):
            self._env.close()
            vars(self._env).clear()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as the call that made this environment."""
        return self._constructor, ()

    def _start_episode(self, seed: int) -> tuple[NDArray[Any], dict[str, Any]]:
        """Resets the environment itself; numpy's global generator has this seed as well."""
        obs, info = self._env.reset(seed=seed)
        return obs, info

    def _went_back(self) -> bool:
        """Whether MuJoCo has replaced the state since the last reset.

        MuJoCo clears its warnings when it does so and counts the one that made it do so after that.
        The clock is no substitute: in the first step of an episode it need not go back.
        """
        warnings = self._env.data.warning
        return any(warnings[kind].number for kind in self._bad_state)


@contextmanager
def _global_numpy_seed(seed: int) -> Iterator[None]:
    """Seeds numpy's global generator inside the block and puts its state back afterwards."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
