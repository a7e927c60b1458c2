"""What simulators that draw frames share: a renderer, render modes, errors that name the cure."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

VARIABLE = "MUJOCO_GL"
RENDERERS = ("egl", "osmesa", "glfw")
"""Values of `MUJOCO_GL`: without a display on a GPU or in software, in software, with a display."""

HINT = (
    "On a machine without a display, MuJoCo draws with EGL or OSMesa (environment variable "
    "MUJOCO_GL=egl or osmesa). Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri; "
    "apt-get install libosmesa6"
)

DRAW = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light/></worldbody></mujoco>")
renderer = mujoco.Renderer(model, 8, 8)
renderer.update_scene(mujoco.MjData(model))
renderer.render()
"""


def choose_renderer() -> str | None:
    """Set `MUJOCO_GL` to the first renderer that works here, unless it is set.

    Call it before MuJoCo or dm_control is imported, which read it then.

    Returns:
        The value of `MUJOCO_GL`; None if none works.
    """
    if not os.environ.get(VARIABLE):
        found = _working_renderer()
        if found is None:
            return None
        os.environ[VARIABLE] = found
    return os.environ[VARIABLE]


@functools.cache
def _working_renderer() -> str | None:
    """Each is tried in a process of its own, which one that does not work may take down."""
    for name in RENDERERS:
        try:
            tried = subprocess.run(
                [sys.executable, "-c", DRAW],
                env={**os.environ, VARIABLE: name},
                capture_output=True,
                timeout=60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            continue
        if tried.returncode == 0:
            return name
    return None


def check_render_mode(render_mode: str | None) -> str | None:
    """Returns the mode.

    Raises:
        ValueError: If it is neither None nor "rgb_array".
    """
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f'render_mode must be None or "rgb_array", got {render_mode!r}.')
    return render_mode


def draw_frame(name: str, draw: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Returns the frame (height, width, 3) that `draw` draws with MuJoCo; `name`: of the task.

    Raises:
        RuntimeError: If no OpenGL backend works.
    """
    fatal_error = importlib.import_module("mujoco").FatalError
    try:
        return draw()
    except (fatal_error, ImportError, AttributeError, RuntimeError) as error:
        raise RuntimeError(
            f"{name}: rendering failed ({error}). {HINT}; it is read when Python starts."
        ) from error
