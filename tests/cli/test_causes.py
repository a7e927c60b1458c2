"""A trial that dies says why, and what a training file registers is there everywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.train_process import COMMAND, TINY

from rllib_ezm.cli.experiment import cause_of
from rllib_ezm.cli.main import main

REGISTERS = """
import gymnasium
from gymnasium.envs.classic_control.pendulum import PendulumEnv

class Mine(PendulumEnv):
    pass

gymnasium.register("MineOfATest-v0", entry_point=Mine, max_episode_steps=20)
config.tasks(["gym:MineOfATest-v0"])
config.env_runners(num_env_runners=1)
config.evaluation(evaluation_interval=1, evaluation_duration=1)
stop = {"training_iteration": 1}
"""
INVALID_ELSEWHERE = """
import os
from rllib_ezm import EZM, EZMConfig

DRIVER = os.getpid()

class Config(EZMConfig):
    def __init__(self, algo_class=None):
        super().__init__(algo_class or Algorithm)

    def validate(self):
        super().validate()
        if os.getpid() != DRIVER:
            raise ValueError("this machine has no such thing")

class Algorithm(EZM):
    @classmethod
    def get_default_config(cls):
        return Config()

config = Config().tasks(["gym:Pendulum-v1"])
"""
BROKEN_RUNNER = """
def connector(env, spaces, device):
    raise KeyError("no such sensor")

config.env_runners(env_to_module_connector=connector, num_env_runners=1)
"""


def train(file: Path, source: str) -> int:
    file.write_text(source)
    return main(["train", "file", str(file), "--local-dir", str(file.parent), "-n", "run"])


def test_what_the_file_registers_reaches_every_process(tmp_path: Path, ray_cluster: None) -> None:
    assert train(tmp_path / "file.py", TINY.format(iteration=60) + REGISTERS) == 0
    (checkpoint,) = (tmp_path / "run").glob("*/checkpoint_*")
    evaluated = subprocess.run(
        [sys.executable, str(COMMAND), "evaluate", str(checkpoint), "--episodes", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert "gym:MineOfATest-v0" in evaluated.stdout


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (INVALID_ELSEWHERE, "failed: ValueError: this machine has no such thing"),
        (
            TINY.format(iteration=60) + BROKEN_RUNNER,
            "failed: EnvRunnerCreationError: an env runner could not be created: "
            "KeyError: 'no such sensor'",
        ),
    ],
)
def test_the_last_line_of_a_trial_that_dies_is_its_cause(
    source: str,
    cause: str,
    tmp_path: Path,
    ray_cluster: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert train(tmp_path / "file.py", source) == 1
    captured = capfd.readouterr()
    assert captured.err.endswith(f"{cause}\n")
    assert "Traceback" not in captured.err + captured.out


def test_a_variant_of_a_grid_that_is_not_valid_is_named_before_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = "from ray import tune\nconfig.training(reanalyze_ratio=tune.grid_search([1.0, 7.0]))\n"
    assert train(tmp_path / "file.py", TINY.format(iteration=60) + grid) == 2
    error = capsys.readouterr().err
    assert "`config` with reanalyze_ratio=7.0 is not valid" in error
    assert error.count("\n") == 1


HIDDEN = """Failure # 1
  File "algorithm.py", line 466, in __init__
    config.validate()
ValueError: why

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "algorithm.py", line 4134, in __repr__
    if self.config.enable_rl_module_and_learner:
AttributeError: 'NoneType' object has no attribute 'enable_rl_module_and_learner'
An unexpected internal error occurred while the worker was executing a task.
"""
NO_SPACES = """  File "env_runner_group.py", line 319, in get_spaces
    spaces = self.foreach_env_runner(
IndexError: list index out of range
"""


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (HIDDEN, "ValueError: why"),
        (HIDDEN.replace("__repr__", "other"), HIDDEN.splitlines()[-1]),
        (NO_SPACES, "an env runner could not be created; --verbose shows why"),
        (NO_SPACES.replace("get_spaces", "step"), "IndexError: list index out of range"),
        (
            "rllib_ezm.tasks.failure.EnvironmentFailedError: a.b: c",
            "EnvironmentFailedError: a.b: c",
        ),
    ],
)
def test_the_cause_is_found_in_the_text_of_an_error(text: str, cause: str) -> None:
    assert cause_of(text) == cause
