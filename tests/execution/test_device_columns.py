"""A replay buffer on the learner's device holds, draws and saves what one on the host does.

The device is the CPU here, as tensors; `tests/test_gpu.py` has a CUDA device.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.replay_episodes import cut, make_buffer, make_episode
from helpers.run_record import go_on
from helpers.tiny import scripted_task, tiny_config

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.execution.device_columns import DeviceColumns, check_free_memory
from rllib_ezm.replay import MultiTaskReplayBuffer
from rllib_ezm.replay.columns import HostColumns, float_columns
from rllib_ezm.replay.storage import load_state, save_state
from rllib_ezm.utils.errors import UserError

ON_THE_DEVICE = {"obs", "actions", "rewards", "search_values", "policy_means", "policy_stds"}


def on_device(columns: Any) -> DeviceColumns:
    return DeviceColumns(columns, "cpu")


def two_buffers(**settings: Any) -> tuple[MultiTaskReplayBuffer, MultiTaskReplayBuffer]:
    """The same seed and sizes, on the host and on the device."""
    return make_buffer(3, 40, **settings), make_buffer(3, 40, make_columns=on_device, **settings)


def fill(buffer: MultiTaskReplayBuffer) -> None:
    """Past wrap-around, with an open episode that goes on."""
    for number in range(7):
        buffer.add(make_episode(0, number, 9, terminated=True))
    buffer.add(make_episode(1, 30, 60, truncated=True))
    buffer.add(cut(make_episode(2, 50, 30), 0, 12))
    buffer.add(cut(make_episode(2, 50, 30), 12, 13))


def assert_same_draws(one: MultiTaskReplayBuffer, two: MultiTaskReplayBuffer) -> None:
    for _ in range(3):
        first, second = one.sample(33), two.sample(33)
        assert first.keys() == second.keys()
        for name, column in first.items():
            other = np.asarray(second[name])
            assert other.dtype == column.dtype, name
            assert other.tobytes() == column.tobytes(), name
        for buffer, batch in ((one, first), (two, second)):
            priorities = np.abs(np.asarray(batch["rewards"])[:, 0])
            buffer.update_priorities(batch["task_ids"], batch["index"], priorities)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("independent", [True, False])
def test_samples_are_those_of_the_host_bit_for_bit(dtype: str, independent: bool) -> None:
    host, device = two_buffers(dtype=dtype, independent=independent)
    for buffer in (host, device):
        fill(buffer)
    assert host.nbytes == device.nbytes
    assert_same_draws(host, device)
    batch = device.sample(5)
    assert {name for name, x in batch.items() if torch.is_tensor(x)} == ON_THE_DEVICE


def test_half_precision_stores_rounded_rows_in_half_of_the_memory() -> None:
    whole, half = (float_columns(10, 100, 40, dtype) for dtype in ("float32", "float16"))
    sizes = [sum(column.nbytes for column in columns.values()) for columns in (whole, half)]
    assert sizes == [10 * (4 * 220 + 8), 10 * (2 * 220 + 8)]
    columns = HostColumns(float_columns(2, 3, 1, "float16"))
    row = np.array([[1e6, -1e6, 1.0 + 2.0**-12]], np.float32)
    columns.write("obs", np.array([1]), row)
    assert columns.holds(1, row[0])
    gathered = columns.gather(np.array([[1, 1, 1]]), np.ones((1, 2), bool), 1)["obs"]
    assert gathered.dtype == np.float32
    np.testing.assert_array_equal(gathered[0, 0], [65504.0, -65504.0, 1.0])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_either_kind_goes_on_from_the_files_of_the_other(dtype: str, tmp_path: Path) -> None:
    host, device = two_buffers(dtype=dtype)
    for name, buffer in (("host", host), ("device", device)):
        fill(buffer)
        save_state(buffer.get_state(copy=False), tmp_path / name)
    files = sorted(file.relative_to(tmp_path / "host") for file in (tmp_path / "host").rglob("*"))
    assert len(files) > 20
    for file in files:
        if (tmp_path / "host" / file).is_file():
            stored = [(tmp_path / name / file).read_bytes() for name in ("host", "device")]
            assert stored[0] == stored[1], file
    swapped = two_buffers(dtype=dtype, seed=99)
    swapped[0].set_state(load_state(tmp_path / "device"))
    swapped[1].set_state(load_state(tmp_path / "host"))
    for buffer in swapped:
        buffer.add(cut(make_episode(2, 50, 30), 13, 30))
    assert_same_draws(*swapped)


def test_a_copied_state_does_not_change_with_the_buffer() -> None:
    _, device = two_buffers()
    fill(device)
    state = device.get_state()
    before = state["rings"]["0"]["columns"]["obs"].copy()
    for number in range(20, 26):
        device.add(make_episode(0, number, 9, terminated=True))
    np.testing.assert_array_equal(state["rings"]["0"]["columns"]["obs"], before)


def test_a_chunk_that_does_not_follow_is_noticed() -> None:
    _, device = two_buffers()
    device.add(cut(make_episode(0, 1, 9), 0, 3))
    part = cut(make_episode(0, 1, 9), 3, 6)
    other = dataclasses.replace(part, observations=part.observations + 1.0)
    with pytest.raises(ValueError, match="first observation differs"):
        device.add(other)
    device.add(part)


def test_a_gather_reads_nothing_back() -> None:
    columns = DeviceColumns(float_columns(20, 3, 2), "meta")
    chain, exists = np.zeros((4, 6), np.int64), np.ones((4, 5), bool)
    batch = columns.gather(chain, exists, 2)
    assert {name: tuple(x.shape) for name, x in batch.items()} == {
        "obs": (4, 6, 3),
        "actions": (4, 3, 2),
        "rewards": (4, 5),
        "search_values": (4, 3),
        "policy_means": (4, 3, 2),
        "policy_stds": (4, 3, 2),
    }


def test_what_does_not_fit_on_the_card_says_what_does() -> None:
    check_free_memory(2**30, 2**30)
    with pytest.raises(UserError, match=r"needs 4\.0 GiB.*has 3\.0 GiB free.*float16.*to 75%"):
        check_free_memory(4 * 2**30, 3 * 2**30)


def config_with(**settings: Any) -> EZMConfig:
    config = tiny_config([scripted_task(5), scripted_task(9)]).env_runners(num_env_runners=0)
    return config.replay(**settings).reporting(min_sample_timesteps_per_iteration=60)


def test_training_is_that_of_the_host_also_after_a_swap(ray_cluster: None, tmp_path: Path) -> None:
    records = []
    for first, second in (("host", "learner"), ("learner", "host")):
        algorithm = config_with(replay_device=first).build_algo()
        records.append(go_on(algorithm, 2))
        assert algorithm.num_updates > 10
        algorithm.save_to_path(tmp_path / first)
        algorithm.stop()
        resumed: EZM = config_with(replay_device=second).build_algo()
        resumed.restore_from_path(tmp_path / first)
        records.append(go_on(resumed, 1))
        assert isinstance(
            resumed.replay_buffer._columns, DeviceColumns if second == "learner" else HostColumns
        )
        resumed.stop()
    for one, two in ((records[0], records[2]), (records[1], records[3])):
        assert one.keys() == two.keys()
        for name, value in one.items():
            np.testing.assert_array_equal(value, two[name], err_msg=name)


def test_half_precision_trains(ray_cluster: None) -> None:
    algorithm = config_with(replay_dtype="float16", replay_device="learner").build_algo()
    try:
        result = algorithm.train()
        assert algorithm.num_updates > 0
        assert result["learners"]["default_policy"]["skipped_updates"] == 0
    finally:
        algorithm.stop()


@pytest.mark.parametrize(
    "changes", [("learners", {"num_learners": 1}), ("replay", {"num_replay_actors": 1})]
)
def test_the_learner_must_be_where_the_buffer_is(changes: tuple[str, dict[str, int]]) -> None:
    config = config_with(replay_device="learner")
    getattr(config, changes[0])(**changes[1])
    with pytest.raises(ValueError, match='replay_device="learner" is for a learner in the process'):
        config.validate()


def test_the_bytes_on_the_gpu_are_told_apart() -> None:
    config = config_with(replay_device="learner")
    assert config.replay_bytes_on_gpu() == 0
    config.learners(num_gpus_per_learner=1)
    tasks = config.get_task_set()
    columns = float_columns(2 * 2000, tasks.obs_dim, tasks.action_dim)
    assert config.replay_bytes_on_gpu() == sum(column.nbytes for column in columns.values())
    assert "GiB of it on the GPU" in config.describe()
