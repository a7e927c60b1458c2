"""An environment whose every reward, flag and observation is known in advance."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class ScriptedEnv(gym.Env[Any, Any]):
    """Step t (from 1) gives reward t; the observation is filled with t; actions are recorded."""

    def __init__(
        self,
        obs_shape: tuple[int, ...] = (2,),
        low: tuple[float, ...] = (-1.0,),
        high: tuple[float, ...] = (1.0,),
        terminate_at: int | None = None,
        truncate_at: int | None = None,
        bad_obs_at: int | None = None,
        bad_reward_at: int | None = None,
        physics_error_at: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, obs_shape, np.float64)
        self.action_space = gym.spaces.Box(np.float32(low), np.float32(high), dtype=np.float32)
        self.render_mode = render_mode
        self.terminate_at = terminate_at
        self.truncate_at = truncate_at
        self.bad_obs_at = bad_obs_at
        self.bad_reward_at = bad_reward_at
        self.physics_error_at = physics_error_at
        self.t = 0
        self.actions: list[np.ndarray] = []

    def _obs(self) -> np.ndarray:
        fill = np.nan if self.t == self.bad_obs_at else self.t
        return np.full(self.observation_space.shape, fill, dtype=np.float64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.t = 0
        return self._obs(), {"note": "reset"}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.actions.append(action)
        self.t += 1
        reward = np.inf if self.t == self.bad_reward_at else float(self.t)
        terminated = self.terminate_at is not None and self.t >= self.terminate_at
        if self.t == self.physics_error_at:
            return self._obs(), 0.0, False, True, {"note": "step", "physics_error": True}
        truncated = self.truncate_at is not None and self.t >= self.truncate_at
        return self._obs(), reward, terminated, truncated, {"note": "step"}
