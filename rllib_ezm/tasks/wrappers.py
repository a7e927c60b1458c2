"""Two small wrappers that change how an episode runs: action repeat and ignored terminations.

`padding.PadTask` applies them, in this order: terminations are dropped first, so that a repeated
action is not cut short by a termination that the task ignores.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym


class ActionRepeat(gym.Wrapper[Any, Any, Any, Any]):
    """Applies each action for several simulator steps and returns the sum of their rewards.

    Stops early when the episode ends. The observation and info are those of the last step.
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
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info


class IgnoreTermination(gym.Wrapper[Any, Any, Any, Any]):
    """Reports `terminated` as False, so the episode goes on until the time limit truncates it.

    The environment must accept steps after its own termination, as MuJoCo ones do.
    """

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps once and drops the termination flag."""
        obs, reward, _, truncated, info = self.env.step(action)
        return obs, reward, False, truncated, info
