"""Videos: for every task one of the episodes that an evaluation counts, as mp4."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner
from rllib_ezm.tasks.failure import MAX_CONSECUTIVE_FAILURES
from rllib_ezm.tasks.rendering import HINT
from rllib_ezm.tasks.slot import TaskSlot
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.file_names import file_names

DEFAULT_FPS = 30
"""Frames per second of an environment that does not tell its own."""


class FilmedSlot(TaskSlot):
    """A slot that films its first episode; drawing changes nothing in it.

    Args:
        runner: The env runner whose slot it replaces.
        task_id: The slot's task.
        path: The mp4.
        fps: Frames (= decisions) per second.
    """

    def __init__(self, runner: MultiTaskEnvRunner, task_id: int, path: Path, fps: int) -> None:
        options = runner.config.env_config
        super().__init__(
            runner.tasks,
            task_id,
            options.get("termination", "respect"),
            render_mode="rgb_array",
            max_consecutive_failures=options.get(
                "max_consecutive_env_failures", MAX_CONSECUTIVE_FAILURES
            ),
        )
        self.path = path
        self.name = runner.tasks.names[task_id]
        self.episode_return = 0.0
        self._fps = fps
        self._writer: Any = None
        self._is_over = False

    def reset(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begins an episode; the first one that is played is filmed from here."""
        result = super().reset(**kwargs)
        if not self._is_over:
            self._finish()
            self.episode_return = 0.0
            imageio = importlib.import_module("imageio.v2")
            self._writer = imageio.get_writer(self.path, fps=self._fps, ffmpeg_log_level="error")
            self._writer.append_data(self.render())
        return result

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One decision, and its frame."""
        result = super().step(action)
        if self._writer is not None:
            if self._current is not None:  # else the environment has failed
                self._writer.append_data(self.render())
            self.episode_return += result[1]
            if result[2] or result[3]:
                self._is_over = True
                self._finish()
        return result

    def close(self) -> None:
        """Closes the environment and the file."""
        self._finish()
        super().close()

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def film(runner: MultiTaskEnvRunner, video_dir: Path, fps: int | None = None) -> list[FilmedSlot]:
    """Have a local env runner film an episode of each task in its next `play_episodes`.

    It is the first one of its task, with the same seed and start as without the film.

    Args:
        runner: Of an evaluation.
        video_dir: Folder of the videos, made if needed; "<task name>.mp4" each, see `file_names`.
        fps: Frames (= decisions) per second; None for real time.

    Returns:
        What films each task, in order of the task ids.

    Raises:
        UserError: If imageio is missing, or a task cannot be rendered.
    """
    _check_imageio()
    tasks, slots = runner.tasks, runner.env.unwrapped.envs
    rates = [fps or _check_frames(runner, task_id) for task_id in range(tasks.num_tasks)]
    video_dir.mkdir(parents=True, exist_ok=True)
    films = []
    for task_id, stem in enumerate(file_names(tasks.names)):
        film = FilmedSlot(runner, task_id, video_dir / f"{stem}.mp4", rates[task_id])
        index = next(i for i, slot in enumerate(slots) if slot.next_task == task_id)
        slots[index] = film
        films.append(film)
    return films


def _check_frames(runner: MultiTaskEnvRunner, task_id: int) -> int:
    """Draw a frame of a task; returns decisions per second of simulated time, at least 1.

    Raises:
        UserError: If rendering fails.
    """
    spec = runner.tasks.specs[task_id]
    env = runner.tasks.make(task_id, render_mode="rgb_array")
    fatal_error = importlib.import_module("mujoco").FatalError
    try:
        env.reset(seed=0)
        frame: Any = env.render()
    except (RuntimeError, ImportError, AttributeError, gym.error.Error, fatal_error) as error:
        hint = "" if "pip install" in str(error) else f" {HINT}"  # of pygame, not of MuJoCo
        raise UserError(f"Cannot render {spec.name}: {error}{hint}") from error
    finally:
        env.close()
    if not isinstance(frame, np.ndarray):
        raise UserError(
            f"{spec.name} gave no frame: its factory must honour render_mode='rgb_array'."
        )
    return max(round(env.metadata.get("render_fps", DEFAULT_FPS) / spec.action_repeat), 1)


def _check_imageio() -> None:
    try:
        importlib.import_module("imageio_ffmpeg")
        importlib.import_module("imageio.v2")
    except ImportError as error:
        raise UserError(f"Videos need imageio ({error}): pip install 'rllib-ezm[video]'") from error
