"""Imports HumanoidBench and repairs, in memory, what newer libraries than its own pins broke.

Its files are never touched. Tested with commit 791405f5 and MuJoCo 3.17.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
from typing import Any

import numpy as np

INSTALL = (
    "pip install imageio 'mujoco>=3.17,<4' 'dm-control>=1.0.50'\n"
    "pip install --no-deps -e 'git+https://github.com/carlosferrazza/humanoid-bench.git"
    "@791405f5eacf879adbc99105adb3fee73f5a49fc#egg=humanoid_bench'"
)
"""What a user types to get a HumanoidBench that works; without `--no-deps` and `-e` it does not."""

_POLICIES = "humanoid_bench.mjx.flax_to_torch"
_GOAL_RADIUS = 0.05
_GOAL_COLOR = (0.8, 0.28, 0.28, 1.0)


@functools.cache
def import_humanoid_bench() -> Any:
    """Returns the module `humanoid_bench.env`, repaired; once per process.

    Raises:
        ImportError: If HumanoidBench is missing or unusable, with the lines that install it.
    """
    mujoco = importlib.import_module("mujoco")  # its own errors are not HumanoidBench's
    _leave_out_jax()
    try:
        importlib.import_module("humanoid_bench")
        env = importlib.import_module("humanoid_bench.env")
        _mend_array_sizes(importlib.import_module("humanoid_bench.dmc_deps.dmc_sizes"), mujoco)
        _mend_rendering(env)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f'Tasks "hb:..." need HumanoidBench, which cannot be used ({error}). It is not on PyPI '
            "and its dependencies are pinned to old releases, so install it with exactly these two "
            f"lines:\n{INSTALL}"
        ) from error
    return env


def _leave_out_jax() -> None:
    """Puts a stub where HumanoidBench imports jax for its hierarchical policies, unused here."""
    if _POLICIES in sys.modules:
        return
    stub: Any = types.ModuleType(_POLICIES)

    class Unavailable:
        def __init__(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("HumanoidBench's hierarchical policies are out of scope here.")

    stub.TorchModel = stub.TorchPolicy = Unavailable
    sys.modules[_POLICIES] = stub


def _mend_array_sizes(sizes: Any, mujoco: Any) -> None:
    """Forgets the fields of MuJoCo 3.1.6 that this release no longer has; nothing reads them."""
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    for struct, value in (("mjmodel", model), ("mjdata", mujoco.MjData(model))):
        table = sizes.array_sizes[struct]
        for field in [field for field in table if not hasattr(value, field)]:
            del table[field]


def _mend_rendering(env: Any) -> None:
    """Gives the tasks a `render` for Gymnasium >= 1.0, where the renderer knows its camera."""

    def render(task: Any) -> Any:
        return task._env.mujoco_renderer.render(task._env.render_mode)

    def render_with_goal(task: Any) -> Any:
        viewer = task._env.mujoco_renderer._get_viewer(task._env.render_mode)
        viewer._markers[:] = [
            {
                "pos": np.asarray(task.goal, np.float64),
                "size": np.full(3, _GOAL_RADIUS),
                "rgba": np.array(_GOAL_COLOR),
            }
        ]
        return render(task)

    importlib.import_module("humanoid_bench.tasks").Task.render = render
    env.Reach.render = env.Push.render = render_with_goal
