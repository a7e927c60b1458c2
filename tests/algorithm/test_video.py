from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from helpers.scripted_env import ScriptedEnv
from helpers.tiny import build_module, tiny_config

from rllib_ezm.algorithm.video import record_videos
from rllib_ezm.tasks.spec import TaskSpec
from rllib_ezm.utils.errors import UserError

needs_imageio = pytest.mark.skipif(
    importlib.util.find_spec("imageio_ffmpeg") is None,
    reason="needs imageio: pip install 'rllib-ezm[video]'",
)


class PaintedEnv(ScriptedEnv):
    """Draws its own frames, so that no renderer is needed; frame t has brightness 20 t."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def render(self) -> Any:
        return np.full((32, 48, 3), 20 * self.t, dtype=np.uint8)


class BlindEnv(ScriptedEnv):
    def render(self) -> Any:
        return None


class BrokenEnv(ScriptedEnv):
    def render(self) -> Any:
        raise gym.error.DependencyNotInstalled("no OpenGL here")


def painted(render_mode: str | None = None) -> PaintedEnv:
    return PaintedEnv(truncate_at=6, render_mode=render_mode)


def task(name: str, make: Any) -> TaskSpec:
    return TaskSpec(name=name, make=make, action_repeat=2)


def frames_of(path: Path) -> tuple[list[np.ndarray], float]:
    import imageio.v2

    with imageio.v2.get_reader(path) as reader:
        return list(reader.iter_data()), reader.get_meta_data()["fps"]


@needs_imageio
def test_one_full_episode_per_task_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config([task("my task/1", painted), task("my task/2", painted)])
    module, tasks = build_module(config, inference_only=True), config.get_task_set()
    paths = record_videos(module, tasks, tmp_path / "new" / "videos", seed=0)
    assert [path.name for path in paths] == ["my_task_1.mp4", "my_task_2.mp4"]
    for path in paths:
        frames, rate = frames_of(path)
        # 6 steps of 2 repeats: frames of the steps 0, 2, 4, 6.
        brightness = [float(frame.mean()) for frame in frames]
        assert brightness == pytest.approx([0, 40, 80, 120], abs=6)
        assert rate == pytest.approx(20 / 2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["my task/1", "my task/2"]
    assert all("return 21.0" in line for line in lines)
    _, rate = frames_of(record_videos(module, tasks, tmp_path, seed=0, fps=5)[0])
    assert rate == pytest.approx(5)


@needs_imageio
def test_names_of_tasks_are_no_paths(tmp_path: Path) -> None:
    folder = tmp_path / "outer" / "videos"
    names = ["../../x", "a/b", "a_b"]
    config = tiny_config([task(name, painted) for name in names])
    paths = record_videos(build_module(config), config.get_task_set(), folder, seed=0)
    assert len({*paths}) == 3
    assert sorted(folder.iterdir()) == sorted(paths)
    assert sorted(tmp_path.rglob("*.mp4")) == sorted(paths)


@needs_imageio
@pytest.mark.parametrize(
    ("make", "says"),
    [(BrokenEnv, "MUJOCO_GL=egl"), (BlindEnv, "render_mode='rgb_array'")],
)
def test_a_task_that_cannot_be_rendered_says_what_to_do(
    make: Any, says: str, tmp_path: Path
) -> None:
    config = tiny_config([task("dark", make)])
    with pytest.raises(UserError, match=f"dark.*{says}"):
        record_videos(build_module(config), config.get_task_set(), tmp_path, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_missing_imageio_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    config = tiny_config([task("bright", painted)])
    with pytest.raises(UserError, match=r"pip install 'rllib-ezm\[video\]'"):
        record_videos(build_module(config), config.get_task_set(), tmp_path, seed=0)


def test_only_ezm_modules_are_recorded(tmp_path: Path) -> None:
    tasks = tiny_config([task("bright", painted)]).get_task_set()
    with pytest.raises(UserError, match="EZM checkpoints only"):
        record_videos(object(), tasks, tmp_path, seed=0)


RECORD_DMC = """
import sys
from pathlib import Path
from helpers.tiny import build_module, tiny_config
from rllib_ezm.algorithm.video import record_videos
config = tiny_config(["dmc:cartpole-balance"], max_episode_steps=4)
record_videos(build_module(config), config.get_task_set(), Path(sys.argv[1]), seed=0)
"""


def has_egl() -> bool:
    code = "import mujoco.egl; mujoco.egl.GLContext(8, 8).make_current()"
    run = subprocess.run(
        [sys.executable, "-c", code], env=headless(), capture_output=True, check=False
    )
    return run.returncode == 0


def headless() -> dict[str, str]:
    environment = {name: os.environ[name] for name in os.environ if name != "DISPLAY"}
    tests = str(Path(__file__).parents[1])
    return {**environment, "MUJOCO_GL": "egl", "PYTHONPATH": f"{tests}:{Path(tests).parent}"}


@needs_imageio
def test_dm_control_is_recorded_on_a_machine_without_a_display(tmp_path: Path) -> None:
    if not has_egl():
        pytest.skip("no EGL library here (Debian, Ubuntu: libegl1 libgl1-mesa-dri)")
    command = [sys.executable, "-c", RECORD_DMC, str(tmp_path)]
    subprocess.run(command, env=headless(), check=True, capture_output=True)
    frames, rate = frames_of(tmp_path / "dmc_cartpole-balance.mp4")
    assert len(frames) == 5
    assert rate == pytest.approx(100)
    assert frames[0].shape == (240, 320, 3)
    assert frames[0].std() > 5.0, "not a black frame"
