"""Tasks "hb:<robot>-<task>": HumanoidBench's h1 family as Gymnasium environments.

HumanoidBench is not on PyPI; `humanoid_bench_import.INSTALL` holds the lines that install it. It is
imported when the first of its tasks is resolved or built. All tasks run at 50 Hz, 10 simulator
steps of 2 ms per decision of HumanoidBench itself, without any further action repeat.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rllib_ezm.tasks.humanoid_bench_import import import_humanoid_bench
from rllib_ezm.tasks.mujoco_env import GuardedMujocoEnv
from rllib_ezm.tasks.spec import TaskSpec, register_prefix

# The files ask for 16384, which makes a frame 5 to 10 times slower in software OpenGL.
_SHADOW_SIZE = 1024

# These carry something of the episode before into a reset: the randomness, the destination.
_RESET_TWICE = ("highbar_simple", "highbar_hard", "package")


class HumanoidBenchEnv(GuardedMujocoEnv):
    """One HumanoidBench task, e.g. "h1hand-walk", without its time limit.

    Observation: joint positions and velocities (D,), unbounded, global x and y included. Action
    (A,) in [-1, 1]: target joint angles over their ranges.
    """

    def __init__(self, task: str, *, render_mode: str | None = None) -> None:
        """Loads the task.

        Args:
            task: "<robot>-<task>".
            render_mode: None, or "rgb_array" for frames from `render`.

        Raises:
            ImportError: If HumanoidBench is missing or unusable.
            ValueError: If the task is the G1 robot's, or the render mode does not exist.
        """
        _refuse_g1(task)
        super().__init__(
            functools.partial(_make_bare_env, task), f"hb:{task}", render_mode=render_mode
        )
        self._constructor = functools.partial(type(self), task, render_mode=render_mode)

        self._reset_twice = task.partition("-")[2] in _RESET_TWICE

    def _start_episode(self, seed: int) -> tuple[NDArray[Any], dict[str, Any]]:
        if self._reset_twice:
            super()._start_episode(seed)
            np.random.seed(seed)
        return super()._start_episode(seed)


def paper_scores() -> dict[str, dict[str, float]]:
    """Returns `{"h1-stand": {"random": ..., "success": ...}, ...}` of the paper's 23 tasks."""
    data = resources.files("rllib_ezm.tasks") / "data" / "humanoid_bench_scores.json"
    scores: dict[str, dict[str, float]] = json.loads(data.read_text())["tasks"]
    return scores


def _make_bare_env(task: str) -> Any:
    """Returns HumanoidBench's own environment; without a render mode it opens no OpenGL context."""
    module = import_humanoid_bench()
    env = module.HumanoidEnv(**gym.spec(f"{task}-v0").kwargs, render_mode=None)
    env.model.vis.quality.shadowsize = _SHADOW_SIZE
    return env


def _refuse_g1(task: str) -> None:
    if task.partition("-")[0] == "g1":
        raise ValueError(
            f'Task "hb:{task}" is refused: building any g1 environment changes the reward of every '
            "h1 environment in the process (HumanoidBench keeps the standing height in a module "
            "variable). Use the h1, h1hand or h1strong task instead."
        )


def _resolve(name: str) -> TaskSpec | None:
    """Returns the spec of "<robot>-<task>".

    Scores are the paper's where it has them; else random 0 and HumanoidBench's own success bar.
    There are no `info_metrics`: `info` holds the terms of the reward and no `success`.
    """
    _refuse_g1(name)
    module = import_humanoid_bench()
    if f"hb:{name}" not in _names():
        return None
    task = module.TASKS[name.partition("-")[2]]
    scores = paper_scores().get(name, {"random": 0.0, "success": float(task.success_bar)})
    return TaskSpec(
        name=f"hb:{name}",
        make=functools.partial(HumanoidBenchEnv, name),
        random_score=scores["random"],
        success_score=scores["success"],
        max_episode_steps=task.max_episode_steps,
    )


def _names() -> list[str]:
    """Returns the tasks whose model HumanoidBench ships; none if it is not installed.

    It registers every robot with every task, but has no model for most of the pairs.
    """
    spec = importlib.util.find_spec("humanoid_bench")
    names = []
    for folder in spec.submodule_search_locations or [] if spec else []:
        for path in Path(folder, "assets", "envs").glob("*_pos_*.xml"):
            robot, task = re.fullmatch(r"(\w+?)_pos_(\w+)", path.stem).groups()  # type: ignore[union-attr]
            names.append(f"hb:{robot}-{task}")
    return sorted(names)


register_prefix("hb", _resolve, _names)
