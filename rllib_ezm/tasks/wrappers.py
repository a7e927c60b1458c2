"""Two small wrappers that change how an episode runs: action repeat and ignored terminations.

`padding.PadTask` applies them, in this order: terminations are dropped first, so that a repeated
action is not cut short by a termination that the task ignores.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


def scalar_reward(reward: Any) -> float:
    """A reward as a float: a number, or an array of one.

    Raises:
        ValueError: It is anything else.
    """
    plain = isinstance(reward, (bool, int, float, np.generic, np.ndarray))
    number = np.asarray(reward if plain else None)
    if number.size != 1 or number.dtype.kind not in "biuf":
        raise ValueError(f"the reward must be one number, got {reward!r}")
    return float(number.item())


class ActionRepeat(gym.Wrapper[Any, Any, Any, Any]):
    """Applies each action for several simulator steps and returns the sum of their rewards.

    Stops early when the episode ends or a number is not finite. The observation and info are those
    of the last step. Each step gets a copy of the action, which the environment may change.
    """

    def __init__(self, env: gym.Env[Any, Any], repeat: int) -> None:
        """Wraps `env`.

        Args:
            env: The environment.
            repeat: Simulator steps per action, at least 1.

        Raises:
            ValueError: If `repeat` is below 1.
        """
        if repeat < 1:
            raise ValueError(f"action_repeat must be >= 1, got {repeat}.")
        super().__init__(env)
        self.repeat = repeat

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps up to `repeat` times; the reward is the sum."""
        total = 0.0
        for _ in range(self.repeat):
            obs, reward, terminated, truncated, info = self.env.step(np.copy(action))
            total += scalar_reward(reward)
            if terminated or truncated or not (np.isfinite(total) and all_finite(obs)):
                break
        return obs, total, terminated, truncated, info


def all_finite(obs: Any) -> bool:
    """Whether every number of an observation, an array or a dict of arrays, is finite."""
    parts = obs.values() if isinstance(obs, dict) else (obs,)
    return all(bool(np.isfinite(part).all()) for part in parts)


class IgnoreTermination(gym.Wrapper[Any, Any, Any, Any]):
    """Reports `terminated` as False, so the episode goes on until the time limit truncates it.

    The environment must accept steps after its own termination, as MuJoCo ones do.
    """

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps once and drops the termination flag."""
        obs, reward, _, truncated, info = self.env.step(action)
        return obs, reward, False, truncated, info
