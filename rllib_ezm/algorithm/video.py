"""Videos: one full evaluation episode per task, as mp4."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns

from rllib_ezm.algorithm.rl_module import EZMTorchRLModule
from rllib_ezm.tasks.multitask import TaskSet
from rllib_ezm.tasks.padding import PadTask
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.file_names import file_names

DEFAULT_FPS = 30
"""Frames per second of an environment that does not tell its own."""


def record_videos(
    module: Any,
    tasks: TaskSet,
    video_dir: Path,
    *,
    seed: int,
    fps: int | None = None,
    termination: str = "respect",
) -> list[Path]:
    """Play one full episode of every task as in evaluation and write it as an mp4.

    Args:
        module: An `EZMTorchRLModule`; it acts by `forward_inference`.
        tasks: The tasks it was trained on.
        video_dir: Folder of the videos, made if needed; "<task name>.mp4" each, see `file_names`.
        seed: Seed of every episode.
        fps: Frames (= decisions) per second; None for real time.
        termination: "respect" or "ignore", see `PadTask`.

    Returns:
        Path of each task's video, in order of the task ids.

    Raises:
        UserError: If imageio is missing, the module cannot play, or a task cannot be rendered.
    """
    if not isinstance(module, EZMTorchRLModule):
        raise UserError(
            f"Videos are recorded of EZM checkpoints only, and this is a {type(module).__name__}."
        )
    imageio = _import_imageio()
    video_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    stems = file_names(tasks.names)
    for task_id, spec in enumerate(tasks.specs):
        path = video_dir / f"{stems[task_id]}.mp4"
        env = tasks.make(task_id, render_mode="rgb_array", termination=termination)
        try:
            rate = fps or _real_time(env, spec.action_repeat)
            episode_return = _record(module, env, path, imageio, seed=seed, fps=rate)
        finally:
            env.close()
        print(f"{spec.name}: return {episode_return:.1f}, video {path}")
        paths.append(path)
    return paths


def _record(
    module: EZMTorchRLModule, env: PadTask, path: Path, imageio: Any, *, seed: int, fps: int
) -> float:
    """Plays and writes one episode; returns its undiscounted return."""
    observation, _ = env.reset(seed=seed)
    frame = _frame(env)
    episode_return, done = 0.0, False
    with imageio.get_writer(path, fps=fps, ffmpeg_log_level="error") as writer:
        writer.append_data(frame)
        while not done:
            observation, reward, terminated, truncated, _ = env.step(_act(module, observation))
            writer.append_data(_frame(env))
            episode_return += reward
            done = terminated or truncated
    return episode_return


def _act(module: EZMTorchRLModule, observation: dict[str, Any]) -> np.ndarray:
    """The evaluation action [A] at one padded observation."""
    device = module.action_mask.device
    batch = {name: torch.as_tensor(x, device=device)[None] for name, x in observation.items()}
    action: np.ndarray = module.forward_inference({Columns.OBS: batch})[Columns.ACTIONS][0].numpy(
        force=True
    )
    return action


def _frame(env: PadTask) -> np.ndarray:
    """The current frame [height, width, 3].

    Raises:
        UserError: If rendering fails.
    """
    fatal_error = importlib.import_module("mujoco").FatalError
    try:
        frame: Any = env.render()
    except (RuntimeError, ImportError, AttributeError, gym.error.Error, fatal_error) as error:
        raise UserError(
            f"Cannot render {env.name}: {error} On a machine without a display, start with the "
            "environment variable MUJOCO_GL=egl (or MUJOCO_GL=osmesa) and its library installed "
            "(Debian, Ubuntu: libegl1, or libosmesa6)."
        ) from error
    if not isinstance(frame, np.ndarray):
        raise UserError(
            f"{env.name} gave no frame: its factory must honour render_mode='rgb_array'."
        )
    return frame


def _real_time(env: PadTask, action_repeat: int) -> int:
    """Decisions per second of simulated time, at least 1."""
    return max(round(env.metadata.get("render_fps", DEFAULT_FPS) / action_repeat), 1)


def _import_imageio() -> Any:
    try:
        importlib.import_module("imageio_ffmpeg")
        return importlib.import_module("imageio.v2")
    except ImportError as error:
        raise UserError(f"Videos need imageio ({error}): pip install 'rllib-ezm[video]'") from error
