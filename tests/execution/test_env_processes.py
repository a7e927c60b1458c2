"""Training with environments in processes is training with environments in the env runner."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import ray
from helpers.run_record import go_on
from helpers.tiny import scripted_task, tiny_config

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.algorithm.checkpoint_evaluation import load_env_runner
from rllib_ezm.tasks.watchdog import WatchedVectorEnv

pytestmark = pytest.mark.usefixtures("ray_cluster")


def config_with(num_env_processes: int, num_env_runners: int = 0) -> EZMConfig:
    tasks = [scripted_task(5), scripted_task(9), "gym:Pendulum-v1"]
    config = tiny_config(tasks, num_env_processes=num_env_processes)
    config.env_runners(num_env_runners=num_env_runners)
    return config.reporting(min_sample_timesteps_per_iteration=60)


def test_a_run_and_its_resumption_are_bit_for_bit_the_same(tmp_path: Path) -> None:
    records = []
    for first, second in ((0, 2), (2, 0)):
        algorithm = config_with(first).build_algo()
        record = go_on(algorithm, 2)
        algorithm.save_to_path(tmp_path / f"{first}")
        algorithm.stop()
        resumed = config_with(second).build_algo()
        resumed.restore_from_path(tmp_path / f"{first}")
        record |= {f"resumed {name}": value for name, value in go_on(resumed, 1).items()}
        resumed.stop()
        records.append(record)
    assert records[0].keys() == records[1].keys()
    for name, value in records[0].items():
        np.testing.assert_array_equal(value, records[1][name], err_msg=name)


def test_a_checkpoint_is_played_in_one_process_which_can_film(tmp_path: Path) -> None:
    algorithm = config_with(2).build_algo()
    path = Path(algorithm.save_to_path(tmp_path / "checkpoint"))
    algorithm.stop()
    runner = load_env_runner(path, episodes=1, num_simulations=None, seed=None)
    assert isinstance(runner.env, WatchedVectorEnv)
    assert len(runner.play_episodes()) == 3
    runner.stop()


def process_ids(algorithm: EZM) -> list[int]:
    (ids,) = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner.env.process_ids, local_env_runner=False
    )
    return list(ids)


def wait_until_gone(ids: list[int]) -> None:
    end = time.monotonic() + 20.0
    while any(Path(f"/proc/{process}").exists() for process in ids) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{process}").exists() for process in ids)


def test_the_processes_of_a_remote_env_runner_go_with_it() -> None:
    algorithm = config_with(3, num_env_runners=1).evaluation(evaluation_duration=1).build_algo()
    try:
        algorithm.train()
        assert algorithm.train()["env_runner_restarts"] == 0
        assert algorithm.num_updates > 0
        assert len(algorithm.evaluate()["tasks"]) == 3
        first = process_ids(algorithm)
        assert len(first) == 3
        (actor,) = algorithm.env_runner_group._worker_manager.actors().values()
        ray.kill(actor, no_restart=False)
        wait_until_gone(first)
        restarts = 0
        while restarts == 0 or algorithm.env_runner_group.num_healthy_remote_workers() == 0:
            restarts = algorithm.train()["env_runner_restarts"]
        algorithm.train()
        second = process_ids(algorithm)
        assert len(second) == 3
    finally:
        algorithm.stop()
    wait_until_gone(second)
