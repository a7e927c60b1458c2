"""Environments that exit, hang or end the process of their env runner, while training goes on."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import faulty_env
from helpers.faulty_env import LENGTH, FaultyEnv
from helpers.results import nan_paths
from helpers.tiny import tiny_config
from ray import cloudpickle

from rllib_ezm import EZMConfig
from rllib_ezm.tasks import EnvironmentFailedError, TaskSpec

pytestmark = pytest.mark.usefixtures("ray_cluster")

CAUGHT, ENDING = ("exits", "hangs"), ("hangs in C", "dies")


@pytest.fixture(scope="module", autouse=True)
def _environments_travel_by_value() -> Iterator[None]:
    """The folder of the tests need not be on the path of Ray's workers."""
    cloudpickle.register_pickle_by_value(faulty_env)
    yield
    cloudpickle.unregister_pickle_by_value(faulty_env)


def broken_config(faults: tuple[str, ...], folder: Path | None, num_env_runners: int) -> EZMConfig:
    tasks = [
        TaskSpec(
            name=fault,
            make=functools.partial(FaultyEnv, fault, str(folder / fault) if folder else None),
            max_episode_steps=1000,
        )
        for fault in faults
    ]
    return (
        tiny_config(tasks, env_step_timeout_s=1.0, max_consecutive_env_failures=2)
        .training(num_steps_sampled_before_learning_starts=10**6)
        .env_runners(num_env_runners=num_env_runners)
        .reporting(min_sample_timesteps_per_iteration=100)
    )


def test_a_run_outlives_environments_that_end_their_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faults = ("none", *CAUGHT, *ENDING)
    algorithm = broken_config(faults, tmp_path, 2).build_algo()
    try:
        with caplog.at_level(logging.WARNING, "rllib_ezm.execution.recovery"):
            for _ in range(30):
                result = algorithm.train()
                tasks = result["tasks"]
                if result["env_runner_restarts"] == 2 and all(
                    tasks[name]["episodes"] > 3 for name in faults
                ):
                    break
        assert nan_paths(result) == []
        assert {name: tasks[name]["env_failures"] for name in faults} == {
            "none": 0,
            "exits": 1,
            "hangs": 1,
            "hangs in C": 1,
            "dies": 1,
        }
        assert result["env_runner_restarts"] == 2
        buffer = algorithm.replay_buffer
        for task, name in enumerate(faults):
            assert buffer.num_transitions(task) == tasks[name]["env_steps"]
        assert "hangs in C: step() took longer than env_step_timeout_s=1.0 of" in caplog.text
        assert "dies: the process died in step()" in caplog.text
        assert tasks["none"]["episode_return_mean"] == sum(range(LENGTH + 1))
    finally:
        algorithm.stop()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("dies", r"^dies: the process died in step\(\).*in a row: 2 \(max_consecutive_env_fail"),
        ("exits", r"^exits: step\(\) raised SystemExit: 3 .*failures in a row: 2"),
    ],
)
def test_after_a_streak_the_run_ends_with_the_task_and_the_cause(fault: str, message: str) -> None:
    algorithm = broken_config((fault,), None, 1).build_algo()
    try:
        with pytest.raises(EnvironmentFailedError, match=message):
            for _ in range(30):
                algorithm.train()
    finally:
        algorithm.stop()
