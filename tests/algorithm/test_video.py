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
from gymnasium.envs.classic_control import PendulumEnv
from helpers.scripted_env import ScriptedEnv
from helpers.tiny import tiny_config

from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner
from rllib_ezm.algorithm.video import film
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


def runner_of(tasks: list[TaskSpec], episodes: int = 1) -> MultiTaskEnvRunner:
    config = tiny_config(tasks).evaluation(evaluation_duration=episodes)
    config.in_evaluation = True
    return MultiTaskEnvRunner(config=config, worker_index=0, num_workers=0)


def filmed(runner: MultiTaskEnvRunner, folder: Path, fps: int | None = None) -> list[Path]:
    films = film(runner, folder, fps)
    runner.play_episodes()
    runner.stop()
    return [each.path for each in films]


@needs_imageio
def test_one_full_episode_per_task_is_filmed(tmp_path: Path) -> None:
    tasks = [task("my task/1", painted), task("my task/2", painted)]
    paths = filmed(runner_of(tasks, episodes=2), tmp_path / "new" / "videos")
    assert [path.name for path in paths] == ["my_task_1.mp4", "my_task_2.mp4"]
    for path in paths:
        frames, rate = frames_of(path)
        # 6 steps of 2 repeats: frames of the steps 0, 2, 4, 6.
        brightness = [float(frame.mean()) for frame in frames]
        assert brightness == pytest.approx([0, 40, 80, 120], abs=6)
        assert rate == pytest.approx(20 / 2)
    _, rate = frames_of(filmed(runner_of(tasks), tmp_path, fps=5)[0])
    assert rate == pytest.approx(5)


class PaintedPendulum(PendulumEnv):
    """Draws the angle, as pygame need not be there."""

    def render(self) -> Any:
        return np.full((32, 48, 3), int(20 * abs(self.state[0])) % 256, dtype=np.uint8)


def pendulum(render_mode: str | None = None) -> PaintedPendulum:
    return PaintedPendulum(render_mode=render_mode)


@needs_imageio
def test_the_episode_on_film_is_one_that_counts(tmp_path: Path) -> None:
    tasks = [TaskSpec(name, pendulum, max_episode_steps=20) for name in ("one", "two")]
    plain = runner_of(tasks, episodes=3).play_episodes()
    runner = runner_of(tasks, episodes=3)
    films = film(runner, tmp_path)
    played = runner.play_episodes()
    assert played == plain, "drawing changes nothing"
    for task_id, each in enumerate(films):
        returns = [p.episode_return for p in played if p.task_id == task_id]
        assert any(each.episode_return == pytest.approx(found, rel=1e-6) for found in returns)
        assert len(frames_of(each.path)[0]) == 21
    assert films[0].episode_return != pytest.approx(films[1].episode_return)


@needs_imageio
def test_names_of_tasks_are_no_paths(tmp_path: Path) -> None:
    folder = tmp_path / "outer" / "videos"
    tasks = [task(name, painted) for name in ("../../x", "a/b", "a_b")]
    paths = filmed(runner_of(tasks), folder)
    assert len({*paths}) == 3
    assert sorted(folder.iterdir()) == sorted(paths)
    assert sorted(tmp_path.rglob("*.mp4")) == sorted(paths)


@needs_imageio
@pytest.mark.parametrize(
    ("make", "says"),
    [(BrokenEnv, "apt-get install libegl1"), (BlindEnv, "render_mode='rgb_array'")],
)
def test_a_task_that_cannot_be_rendered_says_what_to_do(
    make: Any, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"dark.*{says}"):
        film(runner_of([task("dark", make)]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_imageio_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match=r"pip install 'rllib-ezm\[video\]'"):
        film(runner_of([task("bright", painted)]), tmp_path)


RECORD_DMC = """
import sys
from pathlib import Path
from rllib_ezm.tasks.rendering import choose_renderer
print(choose_renderer())
from helpers.tiny import tiny_config
from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner
from rllib_ezm.algorithm.video import film
config = tiny_config(["dmc:cartpole-balance"], max_episode_steps=4)
config.in_evaluation = True
runner = MultiTaskEnvRunner(config=config, worker_index=0, num_workers=0)
film(runner, Path(sys.argv[1]))
runner.play_episodes()
"""


def headless() -> dict[str, str]:
    environment = {n: os.environ[n] for n in os.environ if n not in ("DISPLAY", "MUJOCO_GL")}
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths)}


@needs_imageio
def test_dm_control_finds_a_renderer_by_itself(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", RECORD_DMC, str(tmp_path)]
    run = subprocess.run(command, env=headless(), capture_output=True, text=True, check=False)
    if run.stdout.strip() == "None":
        assert "apt-get install libegl1" in run.stderr
        pytest.skip("no EGL or OSMesa library here (Debian, Ubuntu: libegl1 libgl1-mesa-dri)")
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() in ("egl", "osmesa")
    frames, rate = frames_of(tmp_path / "dmc_cartpole-balance.mp4")
    assert len(frames) == 5
    assert rate == pytest.approx(100)
    assert frames[0].shape == (240, 320, 3)
    assert frames[0].std() > 5.0, "not a black frame"
