"""The sizes of the tasks are read once, where the config is made, and travel with it."""

from __future__ import annotations

import dataclasses
import functools
import os
import pickle
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from helpers.counted_env import counted_tasks, read_counts
from helpers.scripted_env import ScriptedEnv
from helpers.tiny import tiny_config
from ray import tune
from ray.rllib.algorithms import AlgorithmConfig
from ray.rllib.algorithms.sac import SACConfig

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.algorithm.checkpoint_evaluation import evaluate_checkpoint
from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner
from rllib_ezm.baselines import on_tasks
from rllib_ezm.baselines.gradient_similarity import with_gradient_similarity
from rllib_ezm.tasks import EnvironmentFailedError, TaskSpec, register_task, spec, task_set

LENGTHS = (5, 9)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "environments.txt"


def ezm_config(file: Path, runners: int = 0) -> EZMConfig:
    config = tiny_config(counted_tasks(file, *LENGTHS)).env_runners(num_env_runners=runners)
    return config.reporting(min_sample_timesteps_per_iteration=60)


def evaluated(config: AlgorithmConfig, runners: int = 0) -> Any:
    return config.evaluation(
        evaluation_interval=1, evaluation_duration=1, evaluation_num_env_runners=runners
    )


def train(config: AlgorithmConfig, iterations: int = 2) -> dict[str, Any]:
    algorithm = config.build_algo()
    try:
        results = [algorithm.train() for _ in range(iterations)]
    finally:
        algorithm.stop()
    assert set(results[-1]["evaluation"]["tasks"]) == {"counted-0", "counted-1"}
    return results[-1]


def assert_read_once(file: Path) -> None:
    """Each task was built once in this process for its sizes, and else only to be played."""
    counts = read_counts(file)
    assert counts.num_stepped >= len(LENGTHS)
    assert counts.idle == [os.getpid()] * len(LENGTHS)


def test_training_and_evaluation_build_only_what_they_step(ray_cluster: None, file: Path) -> None:
    train(evaluated(ezm_config(file)))
    assert_read_once(file)


def test_env_runners_in_other_processes_build_only_what_they_step(
    ray_cluster: None, file: Path
) -> None:
    train(evaluated(ezm_config(file, runners=2), runners=1))
    assert_read_once(file)


@pytest.mark.parametrize("runners", [0, 1])
def test_sac_and_its_probe_build_only_what_they_step(
    ray_cluster: None, file: Path, runners: int
) -> None:
    config = (
        on_tasks(SACConfig(), counted_tasks(file, *LENGTHS))
        .env_runners(num_env_runners=runners, rollout_fragment_length=10)
        .reporting(min_sample_timesteps_per_iteration=40, min_time_s_per_iteration=0)
        .training(
            train_batch_size_per_learner=24,
            num_steps_sampled_before_learning_starts=20,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 1000},
        )
        .rl_module(model_config={"fcnet_hiddens": [8, 8], "head_fcnet_hiddens": []})
        .debugging(seed=0, log_level="ERROR")
    )
    result = train(with_gradient_similarity(evaluated(config, runners), interval=1))
    assert "probes" in result
    assert_read_once(file)


def test_a_trial_of_tune_builds_only_what_it_steps(
    ray_cluster: None, file: Path, tmp_path: Path
) -> None:
    results = tune.Tuner(
        EZM,
        param_space=evaluated(ezm_config(file)).to_dict(),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path), stop={"training_iteration": 1}, verbose=0
        ),
    ).fit()
    assert results.num_errors == 0
    assert_read_once(file)


def test_a_checkpoint_knows_the_sizes(ray_cluster: None, file: Path, tmp_path: Path) -> None:
    algorithm = ezm_config(file).build_algo()
    algorithm.train()
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    report = evaluate_checkpoint(tmp_path / "checkpoint", episodes=1)
    assert [result.task for result in report.tasks] == ["counted-0", "counted-1"]
    assert_read_once(file)


def test_tasks_by_name_in_env_config_are_read_once_too(
    ray_cluster: None, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spec, "_USER_TASKS", {})
    names = [register_task(t.name, t.make).name for t in counted_tasks(file, *LENGTHS)]
    tasks = [names[0], {"name": names[1], "max_episode_steps": 9}]
    config = ezm_config(file, runners=1).environment(env_config={"tasks": tasks})
    train(evaluated(config, runners=1))
    assert_read_once(file)


def test_copies_and_pickles_carry_the_sizes(file: Path) -> None:
    config = ezm_config(file)
    assert read_counts(file).idle == [], "choosing tasks builds nothing"
    assert config.get_task_set().obs_dims == (2, 3)
    for twin in (
        config.copy(copy_frozen=False),
        cloudpickle.loads(cloudpickle.dumps(config)),
        EZMConfig().update_from_dict(pickle.loads(cloudpickle.dumps(config.to_dict()))),
    ):
        assert twin.get_task_set().obs_dims == (2, 3)
    assert task_set(config.get_task_set().specs).obs_dims == (2, 3)
    assert read_counts(file).idle == [os.getpid()] * len(LENGTHS)


def test_known_sizes_are_no_part_of_a_task(file: Path) -> None:
    (task,) = counted_tasks(file, 5)
    twin = dataclasses.replace(task)
    assert task.dims == (2, 1)
    assert (task, hash(task), repr(task)) == (twin, hash(twin), repr(twin))
    other = dataclasses.replace(task, make=functools.partial(ScriptedEnv, obs_shape=(7,)))
    assert other.dims == (7, 1), "those of another environment are read anew"


def test_an_environment_of_other_sizes_is_refused_with_both() -> None:
    size = [3]
    task = TaskSpec("grows", lambda: ScriptedEnv(obs_shape=(size[0],), truncate_at=4))
    config = tiny_config([task], max_consecutive_env_failures=2)
    tasks = config.get_task_set()
    size[0] = 5
    says = "'grows': this environment has 5 observation and 1 action dims, but 3 and 1 were read"
    with pytest.raises(ValueError, match=says):
        tasks.make(0)
    runner = MultiTaskEnvRunner(config=config, worker_index=0, num_workers=0)
    with pytest.raises(EnvironmentFailedError, match=says):
        runner.sample(num_timesteps=4, random_actions=True)
    size[0] = 1
    with pytest.raises(ValueError, match="has 1 observation and 1 action dims, but 3 and 1"):
        tasks.make(0)
