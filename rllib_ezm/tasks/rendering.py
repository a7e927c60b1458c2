"""What simulators that can draw frames share: render modes, and errors that name the cure."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


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
            f"{name}: rendering failed ({error}). On a machine without a display set the "
            "environment variable MUJOCO_GL=egl (or osmesa) before Python starts."
        ) from error
