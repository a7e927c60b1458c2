"""An environment with infos that cannot be pickled; other processes import it by this name."""

from __future__ import annotations

import threading
from typing import Any

import gymnasium as gym
import numpy as np


class InfoEnv(gym.Env[Any, Any]):
    """Its infos hold what no other process can have."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(1), {"lock": threading.Lock(), "note": 1}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(1), 0.0, False, False, {"note": 2}
