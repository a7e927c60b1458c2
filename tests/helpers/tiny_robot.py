"""A MuJoCo environment of a few parts that behaves like HumanoidBench's: float64, global numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv

FULL_REWARD = 1.0


class TinyRobot(MujocoEnv):
    """Observation: qpos (2), qvel (2) and a goal drawn from numpy's global generator.

    Every step pays a full reward, also one whose simulation broke down.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__(
            str(Path(__file__).with_name("tiny_robot.xml")),
            frame_skip=10,
            observation_space=gym.spaces.Box(-np.inf, np.inf, (5,), np.float64),
            width=64,
            height=48,
            camera_name="side",
        )
        self.goal = 0.0

    def reset_model(self) -> np.ndarray:
        self.goal = np.random.uniform(-1, 1)
        noise = self.np_random.uniform(-0.01, 0.01, self.model.nq)
        self.set_state(self.init_qpos + noise, self.init_qvel)
        return self._obs()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.do_simulation(action, self.frame_skip)
        return self._obs(), FULL_REWARD, False, False, {"goal": self.goal}

    def break_down(self) -> None:
        """Make the next step unstable."""
        self.data.qvel[1] = 1e12

    def _obs(self) -> np.ndarray:
        return np.concatenate([self.data.qpos, self.data.qvel, [self.goal]])
