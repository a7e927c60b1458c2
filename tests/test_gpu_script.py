"""The script that measures a GPU, tried at a tiny size where only torch and numpy are installed."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.scripted_env import ScriptedEnv

from rllib_ezm import EZMConfig
from rllib_ezm.algorithm.update_cost import count_update
from rllib_ezm.cli.gpu_figures import GpuFigures
from rllib_ezm.tasks import TaskSpec
from rllib_ezm.utils.errors import UserError

ROOT = Path(__file__).parents[1]

BARE = """
import runpy, sys

MISSING = ("ray", "gymnasium", "safetensors", "rich", "pyarrow", "mujoco")

class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"{name} is not installed on a bare machine")

sys.meta_path.insert(0, Bare())
sys.argv = ["gpu.py", "--dry", "--json", sys.argv[1]]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


def tiny_hard() -> EZMConfig:
    """The config of what the script calls "hard" at a tiny size."""
    make = functools.partial(ScriptedEnv, obs_shape=(6,), low=(-1.0,) * 2, high=(1.0,) * 2)
    tasks = [TaskSpec(name=f"task {n}", make=make, max_episode_steps=10) for n in range(3)]
    return (
        EZMConfig()
        .tasks(tasks)
        .training(train_batch_size_per_learner=6)
        .world_model(
            latent_dim=16,
            embedding_dim=4,
            action_embedding_dim=4,
            num_blocks=1,
            head_dim=16,
            projection_dim=16,
            num_bins=11,
        )
        .search(num_simulations=4, num_candidates=4, policy_candidates=2)
    )


@pytest.mark.slow
def test_every_part_of_it_runs_on_a_bare_machine(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(tmp_path / "gpu.json")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    figures = json.loads((tmp_path / "gpu.json").read_text())
    assert figures["agreement"]["same_action"] == 1.0
    assert figures["agreement"]["relative_gradient_error"] < 1e-4
    eager = figures["updates, hard, float32, eager"]
    assert eager["updates_per_second"] > 0
    assert eager["dispatches"] > 1000
    assert eager["flops"] == count_update(tiny_hard()).flops
    with pytest.raises(UserError, match="--dry run"):
        GpuFigures(tmp_path / "gpu.json")
    assert figures["searches, bfloat16"]["3_roots"]["searches_per_second"] > 0
