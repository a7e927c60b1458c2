"""Collecting, reanalyzing and learning at the same time, on a real Ray."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from helpers.results import nan_paths
from helpers.tiny import tiny_config
from ray import tune
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.algorithm.evaluation import evaluate_per_task
from rllib_ezm.cli.inspection import inspect_checkpoint
from rllib_ezm.execution.asynchronous import STAGES
from rllib_ezm.execution.weight_transfer import from_transfer_dtype, to_transfer_dtype

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]

TASKS = (
    {"name": "gym:Pendulum-v1", "max_episode_steps": 20},
    {"name": "dmc:cartpole-balance", "max_episode_steps": 33},
)
RATIO = 0.5


def asynchronous_config(num_reanalyze_workers: int) -> EZMConfig:
    return (
        tiny_config([*TASKS])
        .env_runners(num_env_runners=2)
        .learners(num_learners=1)
        .asynchrony(
            True,
            num_reanalyze_workers=num_reanalyze_workers,
            max_queued_batches=3,
            max_updates_behind=10,
            max_weight_age=20,
            weight_transfer_dtype="bfloat16" if num_reanalyze_workers else "float32",
        )
        .training(replay_ratio=RATIO, reanalyze_ratio=0.5)
        .reporting(min_sample_timesteps_per_iteration=100)
    )


@pytest.fixture(scope="module", params=[0, 2], ids=["learner", "2 reanalyze workers"])
def algorithm(request: pytest.FixtureRequest, ray_cluster: None) -> Iterator[EZM]:
    algorithm = asynchronous_config(request.param).build_algo()
    yield algorithm
    algorithm.stop()


def train(algorithm: EZM, iterations: int = 3) -> dict[str, Any]:
    for _ in range(iterations):
        result = algorithm.train()
    assert nan_paths(result) == []
    return result


def assert_sound(algorithm: EZM, result: dict[str, Any]) -> None:
    """Counters reconcile, no task is left out, the replay ratio holds, nothing is too old."""
    steps = {name: task["env_steps"] for name, task in result["tasks"].items()}
    assert sum(steps.values()) == result["replay_transitions"] == len(algorithm.replay_buffer)
    # Each of the two runners keeps its own slot's tasks equal to within an episode of up to 33.
    assert max(steps.values()) - min(steps.values()) <= 2 * 33
    due, made = algorithm.num_updates_due, result["num_updates_lifetime"]
    # Env runners pause at 10 updates behind; what they have under way then still comes in.
    assert due - 10 - RATIO * 2 * 10 - 1 <= made <= due
    learner = result["learners"][DEFAULT_MODULE_ID]
    assert math.isfinite(learner["value_loss"])
    staleness = result["staleness"]
    assert 0 <= staleness["priorities"]["max"] <= 3
    assert 0 < staleness["acting"]["max"] <= 20
    if algorithm.config.num_reanalyze_workers:
        # Weights are sent every 5 updates; three batches may wait.
        assert 0 < staleness["targets"]["max"] <= 5 + 3
    else:
        assert "targets" not in staleness
    for ages in staleness.values():
        assert all(0 <= age <= ages["max"] for age in ages["ages"]), "of this iteration's uses"
    assert result["weight_bytes_sent"] > 0
    assert result["learner_idle_s"] > 0
    seconds = result["stage_seconds"]
    assert set(seconds) == set(STAGES)
    assert result["bottleneck"] in STAGES
    assert seconds["learners"] > 0
    if not algorithm.config.num_reanalyze_workers:
        assert seconds["reanalyze_workers"] == 0


def test_the_stage_that_keeps_the_others_waiting_is_named(ray_cluster: None) -> None:
    """A simulation of 200 ms a fragment, and hardly an update; then updates of a large batch."""
    slow = asynchronous_config(0).tasks(["dmc:humanoid-run"], action_repeat=20)
    fast = asynchronous_config(0).tasks(["gym:Pendulum-v1"], max_episode_steps=20)
    for config, stage in (
        (slow.training(replay_ratio=0.01), "env_runners"),
        (fast.training(train_batch_size_per_learner=400), "learners"),
    ):
        algorithm = config.build_algo()
        try:
            assert train(algorithm, 4)["bottleneck"] == stage
        finally:
            algorithm.stop()


def test_training_goes_on_during_an_evaluation(ray_cluster: None) -> None:
    config = asynchronous_config(1).evaluation(
        evaluation_num_env_runners=1, evaluation_duration=5, evaluation_config={"explore": False}
    )
    algorithm = config.build_algo()
    try:
        train(algorithm)
        steps, updates = algorithm.num_env_steps, algorithm.num_updates
        found = algorithm.evaluate()
        assert [task["episodes"] for task in found["tasks"].values()] == [5, 5]
        assert algorithm.num_env_steps > steps
        assert algorithm.num_updates > updates
        assert_sound(algorithm, train(algorithm, 1))
        assert_an_evaluation_survives_its_env_runner(algorithm)
    finally:
        algorithm.stop()


def assert_an_evaluation_survives_its_env_runner(algorithm: EZM) -> None:
    """It is void, and training goes on."""
    group = algorithm.eval_env_runner_group
    (pid,) = group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
    os.kill(pid, signal.SIGKILL)
    assert evaluate_per_task(algorithm, group) == ({}, 0, 0)
    assert_sound(algorithm, train(algorithm, 1))


def test_all_processes_work_at_the_enforced_replay_ratio(algorithm: EZM) -> None:
    before = algorithm.learner_group.get_state(components="learner")["learner"]["rl_module"]
    result = train(algorithm)
    assert_sound(algorithm, result)
    after = algorithm.learner_group.get_state(components="learner")["learner"]["rl_module"]
    unchanged = [
        name
        for name, value in after[DEFAULT_MODULE_ID].items()
        if ".weight" in name and np.array_equal(value, before[DEFAULT_MODULE_ID][name])
    ]
    assert unchanged == []


def test_targets_are_written_back_while_the_others_go_on(algorithm: EZM) -> None:
    result = train(algorithm, 2)
    assert 0 <= result["target_age"]["p50"] <= result["target_age"]["p95"]
    for ring in algorithm.replay_buffer.get_state()["rings"].values():
        in_order = ring["columns"]["searched_at"][np.argsort(ring["columns"]["ordinals"])]
        # As acted, they are ascending; older states that were searched anew stand out.
        assert (np.diff(in_order) < 0).any()


def test_env_runners_act_with_recent_weights(algorithm: EZM) -> None:
    train(algorithm, 1)
    versions = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner._weights_seq_no, local_env_runner=False
    )
    assert min(versions) > algorithm.num_updates - 20


def test_weights_arrive_as_they_travel(algorithm: EZM) -> None:
    train(algorithm, 1)
    states = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner.module.get_state(), local_env_runner=False
    )
    matrices = [x for state in states for x in state.values() if np.ndim(x) >= 2]
    assert matrices
    rounded = all(np.array_equal(x, from_transfer_dtype(to_transfer_dtype(x))) for x in matrices)
    assert rounded == (algorithm.config.weight_transfer_dtype == "bfloat16")


def test_a_checkpoint_holds_all_that_was_under_way(algorithm: EZM, tmp_path: Path) -> None:
    train(algorithm, 1)
    algorithm.save_to_path(tmp_path / "checkpoint")

    def counters() -> tuple[int, int, int]:
        return algorithm.num_updates, algorithm.num_updates_due, len(algorithm.replay_buffer)

    saved = counters()
    assert saved[2] == algorithm.num_env_steps
    assert inspect_checkpoint(tmp_path / "checkpoint").counters["updates"] == saved[0]
    train(algorithm, 2)
    assert all(x > y for x, y in zip(counters(), saved, strict=True))
    algorithm.restore_from_path(tmp_path / "checkpoint")
    assert counters() == saved
    assert_sound(algorithm, train(algorithm))


def test_training_goes_on_when_an_env_runner_is_killed(algorithm: EZM) -> None:
    pids = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: os.getpid(), local_env_runner=False
    )
    restarts = algorithm.num_env_runner_restarts
    os.kill(pids[0], signal.SIGKILL)
    while not (result := train(algorithm, 1))["env_runner_restarts"] > restarts:
        assert result["replay_transitions"] == len(algorithm.replay_buffer)
    assert_sound(algorithm, train(algorithm))


@pytest.mark.parametrize("algorithm", [2], indirect=True, ids=["2 reanalyze workers"])
def test_training_goes_on_when_a_reanalyze_worker_is_killed(algorithm: EZM) -> None:
    worker = algorithm.pipeline._workers.actors()[0]
    pid = ray.get(worker.apply.remote(lambda worker: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    assert_sound(algorithm, train(algorithm, 2))
    new_pid = pid
    while new_pid == pid:
        try:
            new_pid = ray.get(worker.apply.remote(lambda worker: os.getpid()))
        except ray.exceptions.RayActorError:
            continue
    before = algorithm.num_updates
    assert_sound(algorithm, train(algorithm, 2))
    assert algorithm.num_updates > before


def test_a_trial_asks_for_the_reanalyze_workers_too() -> None:
    config = asynchronous_config(2).asynchrony(num_cpus_per_reanalyze_worker=2)
    bundles = EZM.default_resource_request(config.to_dict()).bundles
    assert [bundle.get("CPU") for bundle in bundles][-2:] == [2, 2]
    without = EZM.default_resource_request(asynchronous_config(0).to_dict()).bundles
    assert bundles[:-2] == without


def test_a_learner_that_dies_is_resumed_from_the_last_checkpoint(tmp_path: Path) -> None:
    flag = tmp_path / "died"

    class LosesItsLearner(EZM):
        """Local, so that Ray ships it to the trial by value."""

        def training_step(self) -> None:
            if self.iteration == 3 and not flag.exists():
                flag.touch()
                (pid,) = self.learner_group.foreach_learner(lambda learner: os.getpid())
                os.kill(pid.get(), signal.SIGKILL)
            super().training_step()

    tuner = tune.Tuner(
        LosesItsLearner,
        param_space=asynchronous_config(0).env_runners(num_env_runners=1),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            stop={"training_iteration": 5},
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=2),
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    )
    result = tuner.fit()[0]
    assert flag.exists()
    assert result.error is None
    assert result.metrics["training_iteration"] == 5
    steps = sum(task["env_steps"] for task in result.metrics["tasks"].values())
    assert steps == result.metrics["replay_transitions"] >= 500


def test_a_node_is_killed_and_another_one_added() -> None:
    script = Path(__file__).parents[1] / "helpers" / "three_nodes.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1].startswith("sound ")
