from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.fs
import pytest
import ray
import torch
from helpers.run_record import go_on
from helpers.tiny import tiny_config
from ray import tune

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.cli.inspection import inspect_checkpoint
from rllib_ezm.cli.main import main
from rllib_ezm.replay import storage
from rllib_ezm.utils.checkpoint_folder import verify, write_manifest
from rllib_ezm.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("ray_cluster")

TASKS = (
    {"name": "gym:Pendulum-v1", "max_episode_steps": 20},
    {"name": "dmc:cartpole-balance", "max_episode_steps": 33},
)
N = 2


def tiny_ezm(num_env_runners: int) -> EZMConfig:
    """Unequal episodes; the checkpoint falls into the random actions and into episodes."""
    return (
        tiny_config([*TASKS])
        .training(
            replay_ratio=0.3,
            num_steps_sampled_before_learning_starts=55,
            num_random_steps=250,
            weight_sync_interval=3,
            reanalyze_ratio=0.5,
        )
        .replay(capacity_per_task=150)
        .env_runners(num_env_runners=num_env_runners)
        .evaluation(evaluation_interval=1, evaluation_duration=1)
        .reporting(min_sample_timesteps_per_iteration=100)
    )


class Saved(NamedTuple):
    """A run of N iterations, its checkpoint, and how it went on for N more."""

    algorithm: EZM
    path: Path
    record: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=[0, 2], ids=["local", "2 env runners"])
def saved(
    request: pytest.FixtureRequest, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Saved]:
    algorithm = tiny_ezm(request.param).build_algo()
    for _ in range(N):
        algorithm.train()
    path = tmp_path_factory.mktemp("run") / "checkpoint"
    algorithm.save_to_path(path)
    yield Saved(algorithm, path, go_on(algorithm, N))
    algorithm.stop()


local_only = pytest.mark.parametrize("saved", [0], indirect=True, ids=["local"])


def assert_same_run(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """Bit for bit, in all that a run consists of."""
    for part in ("result 1/env_runners", "learner/rl_module", "learner/optimizer", "replay/rings"):
        assert any(part in name for name in ours), part
    assert set(ours) == set(theirs)
    different = {n: (x, theirs[n]) for n, x in ours.items() if x.tobytes() != theirs[n].tobytes()}
    assert different == {}


def test_a_resumed_run_is_the_run_that_goes_on(saved: Saved, tmp_path: Path) -> None:
    """In a new process, from start to end; on the cluster of this one."""
    out = tmp_path / "record.npz"
    address = ray.get_runtime_context().gcs_address
    subprocess.run(
        [sys.executable, "-m", "helpers.run_record", saved.path, str(N), out, address],
        cwd=Path(__file__).parents[1],
        # Sums over more threads round in another order.
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        check=True,
    )
    with np.load(out) as record:
        assert_same_run(saved.record, dict(record))


def assert_differ(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """In weights and experience."""
    for part in ("learner/rl_module", "replay/rings"):
        names = [name for name in ours if part in name]
        assert any(ours[name].tobytes() != theirs[name].tobytes() for name in names), part


@local_only
def test_going_back_in_a_running_algorithm_is_the_same_run_too(saved: Saved) -> None:
    saved.algorithm.restore_from_path(saved.path)
    assert_same_run(saved.record, go_on(saved.algorithm, N))


@local_only
def test_a_state_in_memory_is_a_whole_checkpoint_too(saved: Saved, tmp_path: Path) -> None:
    """Also on a file system that is not the local one."""
    state = saved.algorithm.get_state()
    transitions, updates = len(saved.algorithm.replay_buffer), saved.algorithm.num_updates
    remote = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    saved.algorithm.save_to_path("memory", state=state, filesystem=remote)
    verify(tmp_path / "memory")
    saved.algorithm.restore_from_path(saved.path)
    assert saved.algorithm.num_updates < updates
    saved.algorithm.restore_from_path("memory", filesystem=remote)
    assert saved.algorithm.num_updates == updates
    assert len(saved.algorithm.replay_buffer) == transitions


@local_only
def test_a_trial_that_takes_over_a_checkpoint_gets_seeds_of_its_own(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved.algorithm.restore_from_path(saved.path)
    seed, transitions = saved.algorithm._run_seed, len(saved.algorithm.replay_buffer)
    monkeypatch.setattr(EZM, "trial_id", "another")
    saved.algorithm.restore_from_path(saved.path)
    assert saved.algorithm._run_seed != seed
    assert len(saved.algorithm.replay_buffer) == transitions
    assert_differ(saved.record, go_on(saved.algorithm, N))


OTHER_TASKS = [TASKS[:1], ({**TASKS[0], "action_repeat": 2}, TASKS[1])]


@pytest.mark.parametrize("tasks", OTHER_TASKS)
def test_other_tasks_are_refused_before_anything_is_restored(
    saved: Saved, tasks: tuple[dict[str, Any], ...]
) -> None:
    other = tiny_ezm(0).tasks([*tasks]).build_algo()
    try:
        before = other.learner_group.get_state(components="learner")["learner"]["rl_module"]
        for restore in (other.restore_from_path, restore_state(saved, other)):
            with pytest.raises(UserError, match=r"holds the tasks|action_repeat 1 -> 2"):
                restore(saved.path)
        after = other.learner_group.get_state(components="learner")["learner"]["rl_module"]
        for name, weights in before["default_policy"].items():
            np.testing.assert_array_equal(weights, after["default_policy"][name])
    finally:
        other.stop()


def by_task(algorithm: EZM) -> dict[str, dict[str, Any]]:
    """What an algorithm keeps of each task."""
    learner = algorithm.learner_group._learner
    module, acting = learner.ezm_module, algorithm.env_runner.module
    embedding = module.model.task_embedding.weight
    moments = learner.get_optimizer().state[embedding]
    rings = algorithm.replay_buffer.get_state()["rings"]
    statistics = algorithm.task_statistics
    return {
        name: {
            "embedding": embedding[i],
            "target": module.target_model.task_embedding.weight[i],
            "acting": acting.model.task_embedding.weight[i],
            "mask": acting.model.normalizer.observation_mask[i],
            "moments": moments["exp_avg"][i],
            "squares": moments["exp_avg_sq"][i],
            "window": module.variance_window.high[i],
            "steps": statistics.env_steps[i],
            "returns": np.array(statistics.returns[i]),
            "stored": algorithm.replay_buffer.num_transitions(i),
            "observations": rings[str(i)]["columns"]["obs"],
            "of this task": (rings[str(i)]["columns"]["tasks"] == i).all(),
        }
        for i, name in enumerate(algorithm.config.get_task_set().names)
    }


@local_only
def test_tasks_in_another_order_are_found_by_name(saved: Saved) -> None:
    same, reversed_, from_state = (
        tiny_ezm(0).tasks([*tasks]).build_algo() for tasks in (TASKS, TASKS[::-1], TASKS[::-1])
    )
    try:
        same.restore_from_path(saved.path)
        reversed_.restore_from_path(saved.path)
        from_state.set_state(same.get_state())
        wanted = by_task(same)
        pendulum, cartpole = wanted.values()
        assert pendulum["stored"] != cartpole["stored"]
        assert pendulum["moments"].abs().sum() > 0
        for restored in (reversed_, from_state):
            found = by_task(restored)
            assert [*found] == [*wanted][::-1]
            for name, parts in wanted.items():
                for part, value in parts.items():
                    np.testing.assert_array_equal(
                        np.asarray(torch.as_tensor(found[name][part]).detach()),
                        np.asarray(torch.as_tensor(value).detach()),
                        err_msg=f"{name}: {part}",
                    )
        reversed_.train()
    finally:
        for algorithm in (same, reversed_, from_state):
            algorithm.stop()


def restore_state(saved: Saved, other: EZM) -> Callable[[Path], None]:
    return lambda path: other.set_state(saved.algorithm.get_state())


def cut_in_half(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@local_only
@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("replay/rings/1/columns/obs.npy", cut_in_half, "bytes instead of"),
        ("replay/values.json", Path.unlink, "is missing"),
        ("algorithm_state.pkl", flip_a_bit, "not the file that was written"),
        ("learner_group/learner/state.pkl", Path.unlink, "is missing"),
        ("class_and_ctor_args.pkl", cut_in_half, "bytes instead of"),
        ("ezm_manifest.json", Path.unlink, "lacks"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_the_name_of_its_file(
    saved: Saved,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: Any,
    message: str,
) -> None:
    shutil.copytree(saved.path, tmp_path / "copy")
    damage(tmp_path / "copy" / name)
    updates = saved.algorithm.num_updates
    with pytest.raises(UserError, match=message) as error:
        saved.algorithm.restore_from_path(tmp_path / "copy")
    assert name in str(error.value)
    assert saved.algorithm.num_updates == updates > 0
    assert main(["inspect", str(tmp_path / "copy")]) == 2
    assert Path(name).name in capsys.readouterr().err


@local_only
def test_nothing_is_built_from_a_damaged_config(saved: Saved, tmp_path: Path) -> None:
    shutil.copytree(saved.path, tmp_path / "copy")
    cut_in_half(tmp_path / "copy" / "class_and_ctor_args.pkl")
    with pytest.raises(UserError, match=r"class_and_ctor_args\.pkl has"):
        EZM.from_checkpoint(tmp_path / "copy")


@local_only
def test_a_full_disk_leaves_the_run_and_its_last_checkpoint_unharmed(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copytree(saved.path, tmp_path / "checkpoint")
    with monkeypatch.context() as patch:

        def full(*args: Any, **kwargs: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(np, "save", full)
        with pytest.raises(OSError, match="No space left"):
            saved.algorithm.save_to_path(path)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]
    verify(path)
    updates = saved.algorithm.num_updates
    saved.algorithm.train()
    assert saved.algorithm.num_updates > updates


def test_tune_goes_on_when_a_checkpoint_cannot_be_written(tmp_path: Path) -> None:
    class FullDisk(EZM):
        """Its second checkpoint fails. Local, so that Ray ships it to the trial by value."""

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            if self.training_iteration == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().save_checkpoint(checkpoint_dir)

    config = tiny_ezm(0).evaluation(evaluation_interval=None)
    tuner = tune.Tuner(
        FullDisk,
        param_space=config,
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            stop={"training_iteration": 3},
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            verbose=0,
        ),
    )
    result = tuner.fit()[0]
    assert result.error is None
    assert result.metrics["training_iteration"] == 3
    assert result.metrics["checkpoint_failures"] == 1
    written = [metrics["training_iteration"] for _, metrics in result.best_checkpoints]
    assert sorted(written) == [1, 3]
    for checkpoint, _ in result.best_checkpoints:
        verify(Path(checkpoint.path))


@local_only
def test_the_next_checkpoint_shares_the_buffer_of_the_last(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "SEGMENT_ROWS", 16)
    saved.algorithm.save_to_path(tmp_path / "1")
    saved.algorithm.train()
    saved.algorithm.save_to_path(tmp_path / "2")
    names = [file.relative_to(tmp_path / "2") for file in (tmp_path / "2").rglob("obs.*.npy")]
    linked = [name for name in names if (tmp_path / "1" / name).stat().st_nlink == 2]
    assert 0 < len(linked) < len(names)
    verify(tmp_path / "1")
    shutil.rmtree(tmp_path / "1")
    transitions = len(saved.algorithm.replay_buffer)
    saved.algorithm.train()
    saved.algorithm.restore_from_path(tmp_path / "2")
    assert len(saved.algorithm.replay_buffer) == transitions


@local_only
def test_inspect_prints_what_is_in_it(saved: Saved, capsys: pytest.CaptureFixture[str]) -> None:
    summary = inspect_checkpoint(saved.path)
    assert summary.counters["training iterations"] == N
    assert summary.counters["updates"] > 0
    assert [task.name for task in summary.tasks] == [task["name"] for task in TASKS]
    for task in summary.tasks:
        assert 0 < task.stored <= 150
        assert 0.5 < task.fill <= 1.0
        assert task.episodes >= 1
    steps = sum(task.env_steps for task in summary.tasks)
    assert steps == summary.counters["env steps"] >= 200
    changed = {setting.pop("name"): setting for setting in summary.changed}
    expected = {"group": "replay", "value": "150", "default": "1000000"}
    assert changed["capacity_per_task"] == expected
    assert {setting["group"] for setting in changed.values()} >= {"training", "search", "RLlib"}
    assert "gamma" not in changed
    files = [file for file in saved.path.rglob("*") if file.is_file()]
    manifest = saved.path / "ezm_manifest.json"
    assert summary.sizes["all"] == sum(f.stat().st_size for f in files if f != manifest)
    assert summary.sizes["replay buffer"] > 2 * 100 * 5 * 4
    assert all(written == here for written, here in summary.versions.values())
    assert main(["inspect", str(saved.path)]) == 0
    out = capsys.readouterr().out
    for text in ("gym:Pendulum-v1", "capacity_per_task", f"{steps:,}", "Versions", "torch"):
        assert text in out


class Payload:
    """Writes a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@local_only
def test_inspect_executes_nothing_of_the_checkpoint(saved: Saved, tmp_path: Path) -> None:
    checkpoint, executed = tmp_path / "checkpoint", tmp_path / "executed"
    shutil.copytree(saved.path, checkpoint)
    pickles = list(checkpoint.rglob("*.pkl"))
    assert len(pickles) > 3
    for file in pickles:
        file.write_bytes(pickle.dumps(Payload(executed)))
    write_manifest(checkpoint)
    assert inspect_checkpoint(checkpoint).counters["training iterations"] == N
    assert not executed.exists()
    with pytest.raises((UserError, TypeError, AttributeError)):
        EZM.from_checkpoint(checkpoint)
    assert executed.exists()  # the payload is a real one
