"""What an environment reports under `info` reaches results, evaluations and the report."""

from __future__ import annotations

import csv
import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.faulty_env import FaultyEnv
from helpers.tiny import tiny_config
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner
from rllib_ezm.baselines import on_tasks
from rllib_ezm.cli.main import main
from rllib_ezm.report.runs import TaskInfo, find_trials
from rllib_ezm.tasks import TaskSpec, make_gymnasium_env

# MuJoCo's pendulum: reward_survive is 1 until it falls. It cannot fall in three steps, and an
# untrained policy drops it long before 300.
FALLS, STANDS, SILENT = "falls", "gym:InvertedPendulum-v5", "gym:Pendulum-v1"
MEANS = {FALLS: 0.0, STANDS: 1.0}


def tasks() -> list[Any]:
    make = functools.partial(make_gymnasium_env, "InvertedPendulum-v5")
    metrics = ["reward_survive", "no_such_key"]
    return [
        TaskSpec(FALLS, make, max_episode_steps=300, info_metrics=metrics, success_score=9.0),
        {"name": STANDS, "max_episode_steps": 3, "info_metrics": metrics},
        {"name": SILENT, "max_episode_steps": 6, "action_repeat": 2},
    ]


def config() -> EZMConfig:
    return (
        tiny_config(tasks())
        .reporting(min_sample_timesteps_per_iteration=200)
        .evaluation(evaluation_interval=1, evaluation_duration=2)
    )


def reported(per_task: dict[str, Any]) -> dict[str, Any]:
    return {name: values["info"] for name, values in per_task.items() if values.get("info")}


@pytest.fixture(scope="module")
def trial(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two iterations of EZM under Tune with a checkpoint."""
    storage = tmp_path_factory.mktemp("tune")
    results = tune.Tuner(
        EZM,
        param_space=config().to_dict(),
        run_config=tune.RunConfig(
            name="experiment",
            storage_path=str(storage),
            stop={"training_iteration": 2},
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
            verbose=0,
        ),
    ).fit()
    assert results.num_errors == 0
    return Path(results[0].path)


def test_training_and_evaluation_results_have_the_metrics(trial: Path) -> None:
    lines = (trial / "result.json").read_text().splitlines()
    result = json.loads(lines[-1])
    expected = {name: {"reward_survive": mean} for name, mean in MEANS.items()}
    assert reported(result["tasks"]) == expected
    assert reported(result["evaluation"]["tasks"]) == expected


def test_there_are_none_before_the_first_episode(ray_cluster: None) -> None:
    config = tiny_config(tasks()).env_runners(rollout_fragment_length=1)
    algorithm = config.reporting(min_sample_timesteps_per_iteration=3).build_algo()
    try:
        result = algorithm.train()
        assert result["tasks"][STANDS]["episodes"] == 0
        assert reported(result["tasks"]) == {}
    finally:
        algorithm.stop()


def test_an_evaluated_checkpoint_has_the_metrics(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint,) = trial.glob("checkpoint_*")
    file = tmp_path / "evaluation.json"
    assert main(["evaluate", str(checkpoint), "--episodes", "2", "--json", str(file)]) == 0
    rows = [line.strip("│").split("│") for line in capsys.readouterr().out.splitlines()]
    table = [[cell.strip() for cell in row] for row in rows]
    assert [FALLS, "reward_survive", "0.000", "2"] in table
    assert [STANDS, "reward_survive", "1.000", "2"] in table
    assert [STANDS, "no_such_key", "n/a", "0"] in table
    found = {task["task"]: task["info"] for task in json.loads(file.read_text())["tasks"]}
    for name, mean in MEANS.items():
        assert found[name] == {
            "reward_survive": {"mean": mean, "values": [mean] * 2},
            "no_such_key": {"mean": None, "values": [None] * 2},
        }
    assert found[SILENT] == {}


def test_the_report_reads_tasks_and_metrics_from_results_of_tune(
    trial: Path, tmp_path: Path
) -> None:
    (read,), _ = find_trials([trial])
    assert dict(read.tasks) == {
        FALLS: TaskInfo(0.0, 9.0, 1),
        STANDS: TaskInfo(0.0, 1.0, 1),
        SILENT: TaskInfo(0.0, 1.0, 2),
    }
    assert list(read.tasks) == list(read.curves) == [FALLS, STANDS, SILENT], "order of the ids"
    for name, mean in MEANS.items():
        assert read.curves[name].info["reward_survive"].tolist() == [mean] * 2
    if importlib.util.find_spec("rliable") is not None:
        assert main(["report", str(trial), "--out", str(tmp_path)]) == 0
        with (tmp_path / "info.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert {row["task"]: float(row["value"]) for row in rows} == MEANS
        assert {row["metric"] for row in rows} == {"reward_survive"}


def test_other_algorithms_have_them_in_evaluations(ray_cluster: None) -> None:
    algorithm = (
        on_tasks(PPOConfig(), tasks())
        .training(train_batch_size=60, minibatch_size=30, num_epochs=1)
        .evaluation(evaluation_interval=1, evaluation_duration=1, evaluation_num_env_runners=1)
        .build_algo()
    )
    try:
        evaluated = algorithm.train()["evaluation"]["tasks"]
    finally:
        algorithm.stop()
    assert reported(evaluated)[STANDS] == {"reward_survive": 1.0}
    assert evaluated[SILENT]["action_repeat"] == 2


def test_a_failing_environment_keeps_the_metrics_of_its_episode() -> None:
    class Failing(FaultyEnv):
        def step(self, action: Any) -> Any:
            *result, info = super().step(action)
            return *result, info | {"height": 2.5}

    task = TaskSpec("fails", functools.partial(Failing, "step raises"), info_metrics=("height",))
    config = tiny_config([task]).evaluation(evaluation_duration=1)
    config.in_evaluation = True
    runner = MultiTaskEnvRunner(config=config, worker_index=0, num_workers=0)
    (episode,) = runner.play_episodes()
    assert (episode.env_failures, episode.info) == (1, {"height": 2.5})
