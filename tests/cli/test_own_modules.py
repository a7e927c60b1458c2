"""A checkpoint whose task is made by a module beside the training file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.train_process import COMMAND, TINY

MODULE = """
import gymnasium

def make(render_mode=None):
    return gymnasium.make("Pendulum-v1", render_mode=render_mode)
"""
REGISTER = """
import own_tasks_of_a_test
from rllib_ezm.tasks.spec import TaskSpec

config.tasks([TaskSpec(name="own", make=own_tasks_of_a_test.make, max_episode_steps=20)])
"""
FROM_PYTHON = """
import sys
import ray
from rllib_ezm import EZM

ray.init(address="local", num_cpus=2, include_dashboard=False)
algorithm = EZM.from_checkpoint(sys.argv[1])
print("tasks", [spec.name for spec in algorithm.config.get_task_set().specs])
algorithm.stop()
"""


def run(folder: Path, *arguments: str, program: Path = COMMAND) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(program), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=100,
    )


@pytest.mark.slow
def test_it_is_found_where_it_was_and_named_where_it_is_not(tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    script = elsewhere / "from_python.py"
    script.write_text(FROM_PYTHON)
    module = project / "own_tasks_of_a_test.py"
    module.write_text(MODULE)
    (project / "train.py").write_text(TINY.format(iteration=60) + REGISTER)
    options = ["--local-dir", str(tmp_path), "-n", "run", "--stop", '{"training_iteration": 1}']
    trained = run(elsewhere, "train", "file", str(project / "train.py"), *options)
    assert trained.returncode == 0, trained.stderr
    (checkpoint,) = (tmp_path / "run").glob("*/checkpoint_*")

    evaluate = ["evaluate", str(checkpoint), "--episodes", "1"]
    for command in (evaluate, ["inspect", str(checkpoint)]):
        done = run(elsewhere, *command)
        assert done.returncode == 0, done.stderr
        assert "own" in done.stdout
    done = run(elsewhere, str(checkpoint), program=script)
    assert "tasks ['own']" in done.stdout, done.stderr
    beyond = ["--resume", str(tmp_path / "run"), "--stop", '{"training_iteration": 2}']
    done = run(elsewhere, "train", "file", str(project / "train.py"), *beyond)
    assert done.returncode == 0, done.stderr
    assert "iter 2" in done.stdout

    module.rename(project / "renamed.py")
    done = run(elsewhere, *evaluate)
    assert done.returncode == 2
    *_, line = done.stderr.splitlines()  # after what it says of its progress
    assert "needs the module own_tasks_of_a_test, which does not exist here" in line
    assert "looked also in" in line
    assert str(project) in line
    assert "own" in run(elsewhere, "inspect", str(checkpoint)).stdout  # it opens no pickle
    done = run(elsewhere, str(checkpoint), program=script)
    assert "UserError: " in done.stderr
    assert "needs the module own_tasks_of_a_test" in done.stderr
