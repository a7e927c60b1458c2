from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rllib_ezm.cli.curves import curves
from rllib_ezm.cli.loggers import TensorBoardCurves, loggers
from rllib_ezm.cli.main import main
from rllib_ezm.utils.errors import UserError


@dataclass(frozen=True)
class WrittenTrial:
    local_path: str
    evaluated_params: tuple[()] = ()

    def init_local_path(self) -> None:
        """It exists."""


RESULT: dict[str, Any] = {
    "training_iteration": 3,
    "num_env_steps_sampled_lifetime": 1200.0,
    "normalized_score_mean": 0.5,
    "done": False,
    "protocol": "benchmark",
    "config": {"lr": 1.0},
    "tasks": {"dmc:walker-run": {"normalized_score": 0.25, "info": {"success": 1.0}}},
    "evaluation": {
        "normalized_score_mean": 0.75,
        "tasks": {
            "dmc:walker-run": {
                "normalized_score": 0.75,
                "random_score": 0.0,
                "info": {"success": 0.5},
            }
        },
    },
    "env_runners": {
        "episode_return_mean": 9.0,
        "height": 1.5,
        "env_step_timer": 0.1,
        "num_env_steps_sampled_lifetime": 1200.0,
    },
    "learners": {
        "default_policy": {"value_loss": 2.0, "weights_seq_no": 3.0, "policy_loss": math.nan},
        "__all_modules__": {"num_env_steps_trained": 8},
    },
    "throughput": {"updates_per_s": 4.0},
    "staleness": {"acting": {"p50": 1.0, "ages": [0, 1, 2]}},
    "timers": {"training_step": 1.0},
    "mine": 7,
}


def test_curves_are_in_a_handful_of_groups_against_env_steps() -> None:
    assert curves(RESULT) == (
        1200,
        {
            "score/training": 0.5,
            "score/evaluation": 0.75,
            "score/episode_return_mean": 9.0,
            "task/dmc:walker-run/normalized_score": 0.25,
            "task/dmc:walker-run/info/success": 1.0,
            "task/dmc:walker-run/evaluation_normalized_score": 0.75,
            "task/dmc:walker-run/evaluation_info/success": 0.5,
            "loss/value_loss": 2.0,
            "speed/training_iteration": 3.0,
            "speed/updates_per_s": 4.0,
            "speed/staleness/acting/p50": 1.0,
            "speed/staleness/acting/ages": [0.0, 1.0, 2.0],
            "other/env_runners/height": 1.5,
            "other/mine": 7.0,
        },
    )


def test_other_algorithms_have_env_steps_too() -> None:
    nested = {"training_iteration": 1, "env_runners": {"num_env_steps_sampled_lifetime": 64}}
    assert curves(nested).step == 64
    assert curves({"training_iteration": 2}).step == 2


def test_tensorboard_shows_them(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trial: Any = WrittenTrial(str(tmp_path))
    logger = TensorBoardCurves()
    logger.log_trial_result(1, trial, RESULT)
    logger.log_trial_end(trial)
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()["scalars"]
    assert {tag.split("/")[0] for tag in tags} == {"score", "task", "loss", "speed", "other"}
    (point,) = events.Scalars("score/training")
    assert (point.step, point.value) == (1200, 0.5)
    assert events.Histograms("speed/staleness/acting/ages")[0].step == 1200


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_missing_package_is_one_line_with_the_command(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    options = {"wandb": None, "mlflow": None} | {package: "x"}
    with pytest.raises(UserError, match=rf"pip install 'rllib-ezm\[{package}\]'"):
        loggers("name", **options)


PPO = """
from ray.rllib.algorithms.ppo import PPOConfig

config = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0)
    .training(train_batch_size_per_learner=64, minibatch_size=64, num_epochs=1)
)
stop = {"training_iteration": 2}
"""


def test_wandb_and_mlflow_take_the_curves_offline(
    tmp_path: Path,
    ray_cluster: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("wandb", reason="needs wandb: pip install 'rllib-ezm[wandb]'")
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: pip install 'rllib-ezm[mlflow]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlflow").as_uri()
    file = tmp_path / "ppo.py"
    file.write_text(PPO)
    run = ["train", "file", str(file), "--local-dir", str(tmp_path), "-n", "logged"]
    assert main([*run, "--wandb", "project", "--mlflow", uri]) == 0
    assert list((tmp_path / "logged").glob("*/wandb/offline-run-*/*.wandb"))
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("logged")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.info.status == "FINISHED"
    points = client.get_metric_history(logged.info.run_id, "score/episode_return_mean")
    assert [point.step for point in points] == [64, 128]
