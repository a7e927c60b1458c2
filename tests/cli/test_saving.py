"""Checkpoints by time, and how many of them stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.train_process import TINY

from rllib_ezm.cli.main import main
from rllib_ezm.utils.checkpoint_folder import verify
from rllib_ezm.utils.trial_folder import read_result

PPO_FILE = """
from ray.rllib.algorithms.ppo import PPOConfig

config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0)
    .training(train_batch_size_per_learner=64, minibatch_size=64, num_epochs=1)
)
"""


@pytest.mark.parametrize("source", [TINY.format(iteration=60), PPO_FILE], ids=["EZM", "PPO"])
def test_checkpoints_by_time_are_whole_and_the_newest_stay(
    source: str, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiment.py").write_text(source)
    options = ["--local-dir", str(tmp_path), "-n", "run", "--stop", '{"training_iteration": 5}']
    options += ["--checkpoint-minutes", "0.00001", "--keep", "2"]
    assert main(["train", "file", str(tmp_path / "experiment.py"), *options]) == 0
    kept = sorted((tmp_path / "run").glob("*/checkpoint_*"))
    assert [path.name for path in kept] == ["checkpoint_000003", "checkpoint_000004"]
    for path in kept:
        verify(path)
    assert [read_result(path)["training_iteration"] for path in kept] == [4, 5]
    assert f"Checkpoint:  {kept[-1]}" in capsys.readouterr().out


def test_without_checkpoints_by_time_there_is_one_at_the_end(
    tmp_path: Path, ray_cluster: None
) -> None:
    (tmp_path / "experiment.py").write_text(TINY.format(iteration=60))
    options = ["--local-dir", str(tmp_path), "-n", "run", "--stop", '{"training_iteration": 3}']
    options += ["--checkpoint-minutes", "0"]
    assert main(["train", "file", str(tmp_path / "experiment.py"), *options]) == 0
    (checkpoint,) = (tmp_path / "run").glob("*/checkpoint_*")
    assert read_result(checkpoint)["training_iteration"] == 3
