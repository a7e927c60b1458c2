"""Environments that exit, hang or end the process of their env runner, while training goes on."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import faulty_env
from helpers.faulty_env import LENGTH, FaultyEnv
from helpers.results import nan_paths
from helpers.tiny import tiny_config
from ray import cloudpickle

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.tasks import EnvironmentFailedError, TaskSpec
from rllib_ezm.tasks.watchdog import STEP, Death

pytestmark = pytest.mark.usefixtures("ray_cluster")

FAULTS = ("none", "hangs in C", "exits", "hangs")
"""The first two begin in one env runner, and the others in another, which outlives it."""


@pytest.fixture(scope="module", autouse=True)
def _environments_travel_by_value() -> Iterator[None]:
    """The folder of the tests need not be on the path of Ray's workers."""
    cloudpickle.register_pickle_by_value(faulty_env)
    yield
    cloudpickle.unregister_pickle_by_value(faulty_env)


def broken_config(
    faults: tuple[str, ...], folder: Path | None, num_env_runners: int, num_env_processes: int = 0
) -> EZMConfig:
    tasks = [
        TaskSpec(
            name=fault,
            make=functools.partial(FaultyEnv, fault, str(folder / fault) if folder else None),
            max_episode_steps=1000,
        )
        for fault in faults
    ]
    return (
        tiny_config(
            tasks,
            env_step_timeout_s=1.0,
            max_consecutive_env_failures=2,
            num_env_processes=num_env_processes,
        )
        .training(num_steps_sampled_before_learning_starts=10**6)
        .env_runners(num_env_runners=num_env_runners)
        .reporting(min_sample_timesteps_per_iteration=100)
    )


def test_a_run_outlives_environments_that_end_their_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    algorithm = broken_config(FAULTS, tmp_path, 2).build_algo()
    try:
        with caplog.at_level(logging.WARNING, "rllib_ezm.execution.recovery"):
            for _ in range(30):
                result = algorithm.train()
                tasks = result["tasks"]
                if result["env_runner_restarts"] == 1 and all(
                    tasks[name]["episodes"] > 3 for name in FAULTS
                ):
                    break
        assert nan_paths(result) == []
        assert {name: tasks[name]["env_failures"] for name in FAULTS} == {
            "none": 0,
            "exits": 1,
            "hangs": 1,
            "hangs in C": 1,
        }
        assert result["env_runner_restarts"] == 1
        buffer = algorithm.replay_buffer
        for task, name in enumerate(FAULTS):
            not_made = name in ("exits", "hangs")
            assert buffer.num_transitions(task) == tasks[name]["env_steps"] - not_made
        assert "hangs in C: step() took longer than env_step_timeout_s=1.0 of" in caplog.text
        assert tasks["none"]["episode_return_mean"] == sum(range(LENGTH + 1))
        death = Death(FAULTS.index("exits"), STEP, "")
        algorithm._count_death(death)
        with pytest.raises(EnvironmentFailedError, match=r"^exits: the process died.*in a row: 2"):
            algorithm._count_death(death)
        algorithm._restarts_without_progress = 100
        with pytest.raises(RuntimeError, match=r"lost 101 times.*failures_tolerance=100 of"):
            algorithm._start_restarted(algorithm.env_runner_group, [1])
    finally:
        algorithm.stop()


def test_without_env_runners_environments_may_end_processes_of_their_own(tmp_path: Path) -> None:
    # Of one process, the first to end it comes first: what it has not delivered is lost.
    faults = ("none", "hangs in C", "exits", "dies", "hangs")
    algorithm = broken_config(faults, tmp_path, 0, num_env_processes=2).build_algo()
    try:
        for _ in range(30):
            result = algorithm.train()
            tasks = result["tasks"]
            if all(tasks[name]["episodes"] > 3 for name in faults):
                break
        assert nan_paths(result) == []
        assert {name: tasks[name]["env_failures"] for name in faults} == {
            "none": 0,
            "exits": 1,
            "hangs": 1,
            "hangs in C": 1,
            "dies": 1,
        }
        assert result["env_runner_restarts"] == 0
        buffer = algorithm.replay_buffer
        for task, name in enumerate(faults):
            # What the others of a process were about to do when it ended was not made either.
            missing = tasks[name]["env_steps"] - buffer.num_transitions(task)
            assert (name != "none") <= missing <= 2
        processes = algorithm.env_runner.env.process_ids
        assert len(processes) == 2
    finally:
        algorithm.stop()
    assert not any(Path(f"/proc/{process}").exists() for process in processes)


def test_after_a_streak_of_exits_the_run_ends_with_the_task_and_the_cause() -> None:
    algorithm = broken_config(("exits",), None, 0).build_algo()
    try:
        message = r"^exits: step\(\) raised SystemExit: 3 .*failures in a row: 2"
        with pytest.raises(EnvironmentFailedError, match=message):
            algorithm.train()
    finally:
        algorithm.stop()


def train_for_ever(algorithm: EZM) -> None:
    while True:
        algorithm.train()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_num_env_runner_restarts": 0}, "No env runner is left.*env_runner_restarts=0"),
        (
            {"restart_failed_env_runners": False, "ignore_env_runner_failures": True},
            "No env runner is left.*restart_failed_env_runners=False",
        ),
    ],
)
def test_rllibs_settings_of_fault_tolerance_hold(settings: dict[str, Any], message: str) -> None:
    config = broken_config(("dies",), None, 1).fault_tolerance(**settings)
    algorithm = config.build_algo()
    try:
        with pytest.raises(RuntimeError, match=message):
            train_for_ever(algorithm)
    finally:
        algorithm.stop()
