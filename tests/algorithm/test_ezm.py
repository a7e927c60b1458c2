from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.results import nan_paths
from helpers.tiny import tiny_config
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.algorithm.batches import to_chunk
from rllib_ezm.algorithm.checkpoint_evaluation import evaluate_checkpoint, load_env_runner
from rllib_ezm.algorithm.env_runner import ENV_NAME, TASK_ID, MultiTaskEnvRunner
from rllib_ezm.algorithm.evaluation import evaluate_per_task

pytestmark = pytest.mark.usefixtures("ray_cluster")

TASKS = ("gym:Pendulum-v1", "dmc:cartpole-balance")
EPISODE_LENGTH = 20
RATIO = 0.3
START = 55


def algorithm_config(num_env_runners: int) -> EZMConfig:
    return (
        tiny_config(list(TASKS), max_episode_steps=EPISODE_LENGTH)
        .training(
            replay_ratio=RATIO,
            num_steps_sampled_before_learning_starts=START,
            num_random_steps=40,
            weight_sync_interval=3,
        )
        .env_runners(num_env_runners=num_env_runners)
        .evaluation(evaluation_interval=1, evaluation_duration=2)
        .reporting(min_sample_timesteps_per_iteration=100)
    )


class Trained(NamedTuple):
    algorithm: EZM
    results: list[dict[str, Any]]


@pytest.fixture(scope="module", params=[0, 2], ids=["local", "2 env runners"])
def trained(request: pytest.FixtureRequest, ray_cluster: None) -> Iterator[Trained]:
    """An algorithm after two iterations, and their results. Tests leave it as it is."""
    algorithm = algorithm_config(request.param).build_algo()
    yield Trained(algorithm, [algorithm.train() for _ in range(2)])
    algorithm.stop()


def weights(algorithm: Algorithm) -> dict[str, torch.Tensor]:
    """The learner's whole state of the module, target network included."""
    state = algorithm.learner_group.get_state(components="learner")["learner"]
    return {
        name: torch.as_tensor(value)
        for name, value in state[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID].items()
    }


def runner_weights(group: EnvRunnerGroup) -> list[dict[str, torch.Tensor]]:
    """The modules that act, one per env runner."""
    return group.foreach_env_runner(
        lambda runner: {n: x.cpu() for n, x in runner.module.state_dict().items()},
        local_env_runner=group.num_remote_env_runners() == 0,
    )


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert set(ours) <= set(theirs)
    for name in ours:
        torch.testing.assert_close(
            torch.as_tensor(ours[name]), torch.as_tensor(theirs[name]), rtol=0, atol=0, msg=name
        )


def test_the_replay_ratio_is_enforced_exactly(trained: Trained) -> None:
    algorithm, results = trained
    start = algorithm.schedule.learning_start
    fragment = 2 * algorithm.config.rollout_fragment_length + len(TASKS)
    assert START <= start < START + fragment
    for result in results:
        steps = sum(result["tasks"][name]["env_steps"] for name in TASKS)
        expected = math.floor(RATIO * (steps - start))
        assert expected > 0
        assert result["num_updates_lifetime"] == expected
        assert result["replay_ratio"] == pytest.approx(expected / (steps - start))
    steps = sum(results[-1]["tasks"][name]["env_steps"] for name in TASKS)
    assert steps >= 200
    assert algorithm.num_env_steps == steps
    assert algorithm.num_updates == algorithm.num_updates_due
    learner_state = algorithm.learner_group.get_state(components="learner")["learner"]
    assert learner_state["num_updates"] == algorithm.num_updates


def test_every_env_step_is_counted_stored_and_balanced(trained: Trained) -> None:
    algorithm, results = trained
    steps = [results[-1]["tasks"][name]["env_steps"] for name in TASKS]
    sampled = results[-1]["env_runners"]["num_env_steps_sampled_lifetime"]
    assert sum(steps) == sampled == len(algorithm.replay_buffer)
    assert abs(steps[0] - steps[1]) < len(TASKS) * EPISODE_LENGTH
    assert [algorithm.replay_buffer.num_transitions(task) for task in range(2)] == steps
    assert results[-1]["replay_transitions"] == sum(steps)
    assert results[-1]["replay_gaps"] == 0


def test_metrics_are_complete_and_never_nan_from_the_first_iteration(trained: Trained) -> None:
    for result in trained.results:
        for name in ("normalized_score_mean", "evaluation_score_mean", "num_updates_lifetime"):
            assert math.isfinite(result[name]), name
        for name in TASKS:
            assert result["tasks"][name]["episodes"] >= 1
            assert math.isfinite(result["tasks"][name]["episode_return_mean"])
            assert math.isfinite(result["tasks"][name]["normalized_score"])
        assert result["throughput"]["env_steps_per_s"] > 0.0
        assert set(result["learners"][DEFAULT_MODULE_ID]) >= {"reward_loss", "gradient_norm"}
        assert nan_paths(result) == []


def test_scores_are_the_normalized_mean_returns(trained: Trained) -> None:
    result = trained.results[-1]
    pendulum, cartpole = (result["tasks"][name] for name in TASKS)
    assert pendulum["normalized_score"] == pytest.approx(pendulum["episode_return_mean"])
    assert cartpole["normalized_score"] == pytest.approx(cartpole["episode_return_mean"] / 1000)
    mean = (pendulum["normalized_score"] + cartpole["normalized_score"]) / 2
    assert result["normalized_score_mean"] == pytest.approx(mean)


def test_evaluation_gives_every_task_the_same_number_of_episodes(trained: Trained) -> None:
    for result in trained.results:
        evaluation = result["evaluation"]
        assert [evaluation["tasks"][name]["episodes"] for name in TASKS] == [2, 2]
        scores = [evaluation["tasks"][name]["normalized_score"] for name in TASKS]
        assert evaluation["normalized_score_mean"] == pytest.approx(np.mean(scores))
        assert result["evaluation_score_mean"] == evaluation["normalized_score_mean"]
        assert evaluation["num_updates_lifetime"] == result["num_updates_lifetime"]
    assert -20 * EPISODE_LENGTH < evaluation["tasks"][TASKS[0]]["episode_return_mean"] < 0
    assert 0 < evaluation["tasks"][TASKS[1]]["episode_return_mean"] <= EPISODE_LENGTH


def test_env_runners_act_with_the_learners_weights(trained: Trained) -> None:
    algorithm = trained.algorithm
    learner = weights(algorithm)
    algorithm._sync_weights()
    for runner in runner_weights(algorithm.env_runner_group):
        assert_same(runner, learner)


def test_a_checkpoint_keeps_everything(trained: Trained, tmp_path: Path) -> None:
    original = trained.algorithm
    path = original.save_to_path(tmp_path / "checkpoint")
    restored = EZM.from_checkpoint(path)
    try:
        assert_same(weights(original), weights(restored))
        for runner in runner_weights(restored.env_runner_group):
            assert_same(runner, weights(original))
        for name in ("num_updates", "num_env_steps", "iteration", "evaluation_score_mean"):
            assert getattr(restored, name) == getattr(original, name), name
        assert len(restored.replay_buffer) == len(original.replay_buffer)
        ours, theirs = (a.replay_buffer.get_state() for a in (original, restored))
        for ring, saved in ours["rings"].items():
            for name, column in saved["columns"].items():
                np.testing.assert_array_equal(column, theirs["rings"][ring]["columns"][name])
        learner_state = restored.learner_group.get_state(components="learner")["learner"]
        assert learner_state["num_updates"] == original.num_updates

        chunks = restored.env_runner_group.foreach_env_runner(
            lambda runner: [to_chunk(episode) for episode in runner.sample()],
            local_env_runner=restored.env_runner_group.num_remote_env_runners() == 0,
        )
        for chunk in itertools.chain.from_iterable(chunks):
            np.testing.assert_allclose(chunk.actions, np.tanh(chunk.policy_means), atol=1e-5)

        result = restored.train()
        assert result["training_iteration"] == 3
        learned_from = restored.num_env_steps - restored.schedule.learning_start
        assert restored.num_updates == math.floor(RATIO * learned_from) > original.num_updates
        for name in TASKS:
            steps = result["tasks"][name]["env_steps"]
            assert steps > trained.results[-1]["tasks"][name]["env_steps"]
    finally:
        restored.stop()


def test_a_checkpoint_can_be_evaluated_without_the_algorithm(
    trained: Trained, tmp_path: Path
) -> None:
    path = Path(trained.algorithm.save_to_path(tmp_path / "checkpoint"))
    reports = [
        evaluate_checkpoint(path, episodes=3, num_simulations=simulations, seed=5)
        for simulations in (None, 0, 0)
    ]
    for report in reports:
        assert tuple(task.task for task in report.tasks) == TASKS
        for task in report.tasks:
            assert task.lengths == [EPISODE_LENGTH] * 3
    assert reports[1] == reports[2], "the same seed gives the same episodes"
    assert reports[0] != reports[1], "with and without search"
    assert reports[0].protocol == "benchmark", "as trained"
    released = evaluate_checkpoint(path, episodes=1, num_simulations=0, protocol="released")
    assert released.protocol == "released"
    runner = load_env_runner(path, episodes=1, num_simulations=None, seed=None)
    assert_same(dict(runner.module.state_dict()), weights(trained.algorithm))


def test_going_back_to_a_checkpoint_also_takes_the_env_runners_back(tmp_path: Path) -> None:
    algorithm = algorithm_config(0).build_algo()
    try:
        algorithm.train()
        path = algorithm.save_to_path(tmp_path / "checkpoint")
        before = weights(algorithm)
        updates = algorithm.num_updates
        algorithm.train()
        assert any(not torch.equal(before[n], x) for n, x in weights(algorithm).items())
        algorithm.restore_from_path(path)
        assert algorithm.num_updates == updates
        assert_same(weights(algorithm), before)
        algorithm.evaluate()
        for group in (algorithm.env_runner_group, algorithm.eval_env_runner_group):
            for runner in runner_weights(group):
                assert_same(runner, before)
        algorithm.train()
        assert algorithm.replay_buffer.num_gaps == 0
        assert algorithm.num_updates == algorithm.num_updates_due > updates
    finally:
        algorithm.stop()


def test_without_its_buffer_a_restored_algorithm_collects_before_it_learns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = algorithm_config(0).replay(store_buffer_in_checkpoints=False)
    config.evaluation(evaluation_interval=None).reporting(min_sample_timesteps_per_iteration=20)
    config.training(num_steps_sampled_before_learning_starts=30)
    algorithm = config.build_algo()
    try:
        for _ in range(3):
            algorithm.train()
        path = algorithm.save_to_path(tmp_path / "checkpoint")
        updates, steps = algorithm.num_updates, algorithm.num_env_steps
    finally:
        algorithm.stop()
    assert updates > 0
    with caplog.at_level(logging.WARNING, logger="rllib_ezm.execution.checkpointing"):
        restored = EZM.from_checkpoint(path)
    try:
        assert "learning waits until 30 new env steps" in caplog.text
        assert (len(restored.replay_buffer), restored.num_updates) == (0, updates)
        for _ in range(3):
            restored.train()
            collected = restored.num_env_steps - steps
            assert len(restored.replay_buffer) == collected
            assert (restored.num_updates > updates) == (collected >= 50), "waits at 20 and 40"
        learned_from = restored.num_env_steps - restored.schedule.learning_start
        assert restored.num_updates - updates == math.floor(RATIO * learned_from)
    finally:
        restored.stop()


@pytest.mark.parametrize("trainable", [EZM, "EZM"])
def test_tune_runs_the_class_and_the_registered_name(trainable: Any, tmp_path: Path) -> None:
    config = algorithm_config(0).evaluation(evaluation_interval=None)
    config.training(policy_loss=tune.grid_search(["best_action", "distribution"]))
    tuner = tune.Tuner(
        trainable,
        param_space=config,
        run_config=tune.RunConfig(
            storage_path=str(tmp_path), stop={"training_iteration": 1}, verbose=0
        ),
    )
    results = tuner.fit()
    assert results.num_errors == 0
    assert sorted(r.config["policy_loss"] for r in results) == ["best_action", "distribution"]
    for result in results:
        assert result.metrics["num_updates_lifetime"] > 0
        assert math.isfinite(result.metrics["normalized_score_mean"])


def test_ppo_trains_on_the_same_tasks_and_runner() -> None:
    tasks = [{"name": name, "max_episode_steps": EPISODE_LENGTH} for name in TASKS]
    config = (
        PPOConfig()
        .environment(ENV_NAME, env_config={"tasks": tasks})
        .env_runners(
            env_runner_cls=MultiTaskEnvRunner,
            num_env_runners=0,
            env_to_module_connector=lambda env, spaces, device: FlattenObservations(),
        )
        .training(train_batch_size_per_learner=80, minibatch_size=40, num_epochs=1)
        .evaluation(
            evaluation_interval=1,
            evaluation_duration=2,
            custom_evaluation_function=evaluate_per_task,
            evaluation_config=AlgorithmConfig.overrides(explore=False),
        )
    )
    algorithm = config.build_algo()
    try:
        result = algorithm.train()
        evaluation = result["evaluation"]
        assert [evaluation["tasks"][name]["episodes"] for name in TASKS] == [2, 2]
        assert math.isfinite(evaluation["normalized_score_mean"])
        assert result["env_runners"]["num_env_steps_sampled_lifetime"] >= 80
        assert math.isfinite(result["learners"][DEFAULT_MODULE_ID]["policy_loss"])
        steps = [0, 0]
        for episode in algorithm.env_runner.sample(num_timesteps=200):
            steps[episode.custom_data[TASK_ID]] += len(episode)
        assert abs(steps[0] - steps[1]) <= EPISODE_LENGTH
    finally:
        algorithm.stop()
