"""`benchmarks/sb3.py`: the baselines of other packages on our tasks."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rllib_ezm.tasks.spec import resolve_task
from rllib_ezm.utils.errors import UserError

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import sb3  # noqa: E402
from curve_file import COLUMNS  # noqa: E402

needs_sb3 = pytest.mark.skipif(
    importlib.util.find_spec("sb3_contrib") is None, reason="stable-baselines3 is not installed"
)


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    script = str(ROOT / "benchmarks" / "sb3.py")
    tiny = ["gym:Pendulum-v1", "--out", str(out), "--episodes", "2", *options]
    return subprocess.Popen(
        [sys.executable, script, *tiny],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "curve.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_without_the_packages_it_names_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'sb3-contrib: pip install -e "\.\[sb3\]"'):
        sb3.require_sb3()


def test_the_environment_is_our_padded_task_as_a_plain_vector() -> None:
    spec = resolve_task("gym:Pendulum-v1", action_repeat=2)
    env, ours = sb3.make_env(spec), sb3.task_set([spec]).make(0)
    observation, _ = env.reset(seed=3)
    np.testing.assert_array_equal(observation, ours.reset(seed=3)[0]["obs"])
    action = np.array([0.5], dtype=np.float32)
    left, right = env.step(action), ours.step(action)
    np.testing.assert_array_equal(left[0], right[0]["obs"])
    assert left[1:4] == right[1:4]
    assert env.observation_space.contains(observation)


@needs_sb3
@pytest.mark.slow
def test_after_kill_9_sac_goes_on_with_its_replay_buffer(tmp_path: Path) -> None:
    options = ["--algorithm", "sac", "--decisions", "180", "--every", "60", "--seed", "4"]
    folder = tmp_path / "sb3_sac_gym-Pendulum-v1_seed4"
    process = start(tmp_path, *options)
    end = time.monotonic() + 180
    while not (folder / "save" / "model.zip").is_file():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    before: dict[str, Any] = json.loads((folder / "state.json").read_text())
    output = start(tmp_path, *options).communicate(timeout=180)[0]
    state = json.loads((folder / "state.json").read_text())
    assert state["decisions"] == 180, output
    assert state["lives"] == 2
    assert state["cpu_s"] > before["cpu_s"] > 0.0
    rows = rows_of(folder)
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["decisions"]) for row in rows] == [60, 120, 180]
    assert [int(row["env_steps"]) for row in rows] == [120, 240, 360]
    assert [int(row["updates"]) for row in rows] == [0, 20, 80]  # SAC learns from 101 on
    assert all(row["variant"] == "sb3_sac" and row["episodes"] == "2" for row in rows)
    seconds = [float(row["cpu_s"]) for row in rows]
    assert seconds == sorted(seconds)
    from stable_baselines3 import SAC

    model = SAC.load(folder / "save" / "model.zip")
    model.load_replay_buffer(folder / "save" / "replay.pkl")
    assert model.replay_buffer.pos == 180 or model.replay_buffer.full


@needs_sb3
@pytest.mark.slow
def test_crossq_stops_at_its_cpu_seconds(tmp_path: Path) -> None:
    options = ["--algorithm", "crossq", "--cpu-seconds", "10", "--every", "1000"]
    output = start(tmp_path, *options).communicate(timeout=180)[0]
    (row,) = rows_of(tmp_path / "sb3_crossq_gym-Pendulum-v1_seed0")
    assert row["variant"] == "sb3_crossq", output
    assert int(row["decisions"]) < 1000
    assert float(row["cpu_s"]) >= 10.0
