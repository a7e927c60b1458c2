"""An environment with one fault, on top of a known reward and a start drawn with its seed."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

LENGTH = 12
FAULTY_STEP = 7
BAD_NUMBERS: dict[str, Callable[[np.ndarray, float], tuple[np.ndarray, float]]] = {
    "nan observation": lambda obs, reward: (obs * np.nan, reward),
    "huge observation": lambda obs, reward: (obs + 1e39, reward),
    "nan reward": lambda obs, reward: (obs, np.nan),
    "huge reward": lambda obs, reward: (obs, 1e39),
}
"""What the seventh step of every episode returns; float32, which the replay holds, ends at 3e38."""


CALLS: dict[str, Callable[[], Any]] = {
    "exits": lambda: sys.exit(3),
    "hangs": lambda: time.sleep(1e6),
    "hangs in C": lambda: sum(itertools.repeat(0)),
    "dies": lambda: os._exit(7),
    "aborts": os.abort,
}
"""What the seventh step calls; no exception ends the third of them, and none is the last two."""


class FaultyEnv(gym.Env[Any, Any]):
    """Step t (from 1) gives reward t, the observation is (start, t); twelve steps an episode.

    Faults: one of `BAD_NUMBERS` at every seventh step, "step raises" or one of `CALLS` at a seventh
    step and "reset raises", "reset hangs" or "reset dies" in a second reset, each once if there is
    a `flag` (a file that must not exist yet), "always" at every seventh step.
    """

    def __init__(self, fault: str = "none", flag: str | None = None) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.fault, self.flag = fault, flag
        self.t = self.resets = 0
        self.start = np.nan

    def _obs(self) -> np.ndarray:
        return np.array([self.start, self.t], dtype=np.float64)

    def _is_over(self) -> bool:
        """Whether the fault happened before."""
        if self.flag is not None:
            try:
                os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return True
        return False

    def _fail(self, message: str) -> None:
        if not self._is_over():
            raise ValueError(message)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.resets += 1
        if self.fault == "reset raises" and self.resets > 1:
            self._fail("no way to reset")
        if self.fault == "reset hangs" and self.resets > 1 and not self._is_over():
            CALLS["hangs"]()
        if self.fault == "reset dies" and self.resets > 1 and not self._is_over():
            CALLS["dies"]()
        self.start, self.t = self.np_random.uniform(1.0, 2.0), 0
        return self._obs(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        obs, reward = self._obs(), float(self.t)
        if self.t == FAULTY_STEP:
            if self.fault in ("step raises", "always"):
                self._fail("no way to step")
            if self.fault in CALLS and not self._is_over():
                CALLS[self.fault]()
            obs, reward = BAD_NUMBERS.get(self.fault, lambda *good: good)(obs, reward)
        return obs, reward, False, self.t == LENGTH, {}
