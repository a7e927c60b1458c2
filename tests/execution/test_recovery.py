"""Faults with training going on: all tasks are still collected, and the counters add up."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import ray
import torch
from helpers import faulty_env
from helpers.faulty_env import FAULTY_STEP, LENGTH, FaultyEnv
from helpers.results import nan_paths
from helpers.tiny import tiny_config
from ray import cloudpickle
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner
from rllib_ezm.algorithm.evaluation import evaluate_per_task
from rllib_ezm.tasks import EnvironmentFailedError, TaskSpec
from rllib_ezm.utils.checkpoint_folder import verify

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]

FAULTS = ("none", "step raises", "reset raises", "nan observation", "huge reward")
RAISING, BREAKING = FAULTS[1:3], FAULTS[3:]


@pytest.fixture(scope="module", autouse=True)
def _environments_travel_by_value() -> Iterator[None]:
    """The folder of the tests need not be on the path of Ray's workers."""
    cloudpickle.register_pickle_by_value(faulty_env)
    yield
    cloudpickle.unregister_pickle_by_value(faulty_env)


class Recreated(RLlibCallback):
    """Notes which env runners were recreated; they can be reached by then."""

    env_runners: ClassVar[list[int]] = []

    def on_env_runners_recreated(
        self,
        *,
        env_runner_group: EnvRunnerGroup,
        env_runner_indices: list[int],
        is_evaluation: bool,
        **kwargs: Any,
    ) -> None:
        assert not is_evaluation
        found = env_runner_group.foreach_env_runner(
            lambda runner: runner.worker_index,
            remote_worker_ids=env_runner_indices,
            local_env_runner=False,
        )
        self.env_runners.extend(found)


def faulty_config(folder: Path, num_env_runners: int) -> EZMConfig:
    tasks = [
        TaskSpec(
            name=fault,
            make=functools.partial(
                FaultyEnv, fault, str(folder / fault) if fault in RAISING else None
            ),
            success_score=100.0,
            max_episode_steps=1000,
        )
        for fault in FAULTS
    ]
    return (
        tiny_config(tasks)
        .callbacks(Recreated)
        .training(
            train_batch_size_per_learner=10,
            replay_ratio=0.05,
            num_steps_sampled_before_learning_starts=100,
        )
        .replay(capacity_per_task=20_000)
        .env_runners(num_env_runners=num_env_runners)
        .reporting(min_sample_timesteps_per_iteration=100)
    )


@pytest.fixture(scope="module")
def distributed(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EZM]:
    """Two env runners; each test leaves it training."""
    algorithm = faulty_config(tmp_path_factory.mktemp("flags"), 2).build_algo()
    yield algorithm
    algorithm.stop()


def assert_sound(algorithm: EZM, result: dict[str, Any]) -> None:
    """No NaN; every env step that is counted has been stored, under its own task.

    But not the one in which an environment raised, and which it therefore did not make.
    """
    assert nan_paths(result) == []
    buffer, statistics = algorithm.replay_buffer, algorithm.task_statistics
    steps = [result["tasks"][name]["env_steps"] for name in FAULTS]
    stored = [count - (name == "step raises") for name, count in zip(FAULTS, steps, strict=True)]
    assert [buffer.num_transitions(task) for task in range(len(FAULTS))] == stored
    assert statistics.env_steps.tolist() == steps
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] == sum(steps)
    assert algorithm.num_updates == algorithm.num_updates_due > 0
    for name in BREAKING:
        task = result["tasks"][name]
        assert task["physics_errors"] == task["episodes"] > 0
        assert task["episode_return_mean"] == sum(range(FAULTY_STEP)), "the bad step gives 0"
    assert result["tasks"]["none"]["episode_return_mean"] == sum(range(LENGTH + 1))
    for name in FAULTS:
        assert result["tasks"][name]["env_failures"] == (name in RAISING), name


def assert_balanced(algorithm: EZM, before: np.ndarray) -> None:
    """Since then, every task got the same number of env steps, up to an episode per slot."""
    steps = algorithm.task_statistics.env_steps - before
    assert steps.min() > 0
    assert np.ptp(steps) <= 2 * len(FAULTS) * LENGTH < steps.sum()


def episode_starts(algorithm: EZM) -> np.ndarray:
    """The random start of every episode in the buffer; episodes with equal seeds have equal ones.

    An observation is (start, step).
    """
    rings = algorithm.replay_buffer.get_state()["rings"].values()
    states = np.concatenate([ring["columns"]["obs"] for ring in rings])
    return states[states[:, 1] == 0.0, 0]


def runner_states(algorithm: EZM) -> dict[int, tuple[int, int, dict[str, torch.Tensor]]]:
    """Process, seed and weights of every remote env runner that is there."""

    def look(runner: MultiTaskEnvRunner) -> tuple[int, tuple[int, int, dict[str, torch.Tensor]]]:
        weights = {name: tensor.cpu() for name, tensor in runner.module.state_dict().items()}
        return runner.worker_index, (os.getpid(), runner._seed, weights)

    return dict(algorithm.env_runner_group.foreach_env_runner(look, local_env_runner=False))


def test_faulty_environments_in_this_process(tmp_path: Path) -> None:
    algorithm = faulty_config(tmp_path, 0).build_algo()
    try:
        before = algorithm.task_statistics.env_steps.copy()
        for _ in range(3):
            result = algorithm.train()
        assert_sound(algorithm, result)
        assert_balanced(algorithm, before)
        state = algorithm.task_statistics.get_state()
        assert state["env_failures"].tolist() == [0, 1, 1, 0, 0]
    finally:
        algorithm.stop()


def test_an_environment_that_always_fails_ends_the_training_with_its_error() -> None:
    broken = TaskSpec("broken", functools.partial(FaultyEnv, "always"), max_episode_steps=1000)
    config = tiny_config([broken], max_consecutive_env_failures=3)
    algorithm = config.env_runners(num_env_runners=0).build_algo()
    try:
        with pytest.raises(EnvironmentFailedError, match=r"broken: step\(\) raised ValueError"):
            algorithm.train()
    finally:
        algorithm.stop()


def test_faulty_environments_in_env_runners(distributed: EZM) -> None:
    before = distributed.task_statistics.env_steps.copy()
    for _ in range(3):
        result = distributed.train()
    assert_sound(distributed, result)
    assert_balanced(distributed, before)
    assert result["env_runner_restarts"] == 0, "only the environments were built again"


def test_training_goes_on_when_an_env_runner_is_killed(distributed: EZM) -> None:
    Recreated.env_runners.clear()
    old = runner_states(distributed)
    starts = episode_starts(distributed)
    os.kill(old[1][0], signal.SIGKILL)
    without_it = 0
    while not (result := distributed.train())["env_runner_restarts"]:
        assert_sound(distributed, result)
        without_it += 1
    assert without_it > 0
    assert result["env_runner_restarts"] == 1
    assert Recreated.env_runners == [1]
    new = runner_states(distributed)
    assert new[2][:2] == old[2][:2]
    assert new[1][0] != old[1][0]
    assert new[1][1] not in (old[1][1], old[2][1])
    before = distributed.task_statistics.env_steps.copy()
    for _ in range(3):
        result = distributed.train()
    assert_sound(distributed, result)
    assert_balanced(distributed, before)
    after = episode_starts(distributed)
    assert len(after) > len(starts) > 20
    assert len(set(after.tolist())) == len(after), "no episode is played a second time"


def test_a_restart_that_nobody_noticed_is_noticed_before_sampling(distributed: EZM) -> None:
    Recreated.env_runners.clear()
    restarts = distributed.num_env_runner_restarts
    old = runner_states(distributed)
    actor = distributed.env_runner_group._worker_manager.actors()[2]
    os.kill(old[2][0], signal.SIGKILL)
    pid = old[2][0]
    while pid == old[2][0]:
        time.sleep(0.5)
        try:
            pid = ray.get(actor.apply.remote(lambda runner: os.getpid()))
        except ray.exceptions.RayActorError:
            continue
    assert distributed.env_runner_group.num_healthy_remote_workers() == 2
    for _ in range(3):
        result = distributed.train()
    assert result["env_runner_restarts"] == restarts + 1
    assert Recreated.env_runners == [2]
    assert_sound(distributed, result)
    starts = episode_starts(distributed)
    assert len(set(starts.tolist())) == len(starts)
    distributed._sync_weights()
    learner = distributed.learner_group.get_state(components="learner")["learner"]
    weights = learner[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
    for _, _, acting in runner_states(distributed).values():
        for name, tensor in acting.items():
            torch.testing.assert_close(tensor, torch.as_tensor(weights[name]), rtol=0, atol=0)


def test_an_evaluation_that_lost_an_env_runner_does_not_count(
    distributed: EZM, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_of_two = SimpleNamespace(
        num_remote_env_runners=lambda: 2, foreach_env_runner=lambda *args, **kwargs: [[]]
    )
    assert evaluate_per_task(distributed, one_of_two) == ({}, 0, 0)
    distributed.evaluation_score_mean = 0.25
    monkeypatch.setattr(Algorithm, "evaluate", lambda self: {"evaluation": {}})
    distributed.evaluate()
    assert distributed.evaluation_score_mean == 0.25


def read_only(folder: Path) -> Path:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    folder.chmod(0o500)
    return folder / "checkpoint"


def below_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "checkpoint"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB; root only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_run_and_the_last_checkpoint(
    distributed: EZM, small_disk: Path
) -> None:
    checkpoint = small_disk / "checkpoint"
    distributed.save_to_path(checkpoint)
    size = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - size // 2))
    with pytest.raises(OSError, match="No space left on device"):
        distributed.save_to_path(checkpoint)
    assert sorted(file.name for file in small_disk.iterdir()) == ["checkpoint", "filler"]
    verify(checkpoint)
    updates = distributed.num_updates
    assert_sound(distributed, distributed.train())
    assert distributed.num_updates > updates
    filler.unlink()
    distributed.save_to_path(checkpoint)
    verify(checkpoint)


def test_training_goes_on_when_the_object_store_is_full() -> None:
    """Others fill it with objects that stay in use; what training adds is spilled to disk."""
    script = Path(__file__).parents[1] / "helpers" / "full_object_store.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1].startswith("sound ")


@pytest.mark.parametrize("place", [read_only, below_a_file])
def test_a_checkpoint_that_the_disk_refuses_leaves_the_run_and_the_last_one(
    distributed: EZM, tmp_path: Path, place: Any
) -> None:
    """A real refusal by the file system."""
    good = distributed.save_to_path(tmp_path / "good")
    folder = tmp_path / "refused"
    folder.mkdir()
    with pytest.raises(OSError, match=r".") as error:
        distributed.save_to_path(place(folder))
    assert error.value.errno in (errno.EACCES, errno.ENOTDIR, errno.EEXIST)
    verify(Path(good))
    updates = distributed.num_updates
    assert_sound(distributed, distributed.train())
    assert distributed.num_updates > updates
