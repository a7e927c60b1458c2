"""A buffer's state survives the disk; files that cannot be read are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.replay_episodes import cut, make_buffer, make_episode

from rllib_ezm.replay import MultiTaskReplayBuffer
from rllib_ezm.replay.storage import load_state, save_state
from rllib_ezm.utils.errors import UserError


def filled_buffer() -> MultiTaskReplayBuffer:
    buffer = make_buffer(3, 40)
    for number in range(7):
        buffer.add(make_episode(0, number, 9, terminated=True))
    buffer.add(cut(make_episode(2, 50, 30), 0, 12))
    return buffer


@pytest.mark.parametrize("copy", [True, False])
def test_a_buffer_goes_on_from_disk_as_it_would_have(copy: bool, tmp_path: Path) -> None:
    buffer, restored = filled_buffer(), make_buffer(3, 40, seed=99)
    save_state(buffer.get_state(copy=copy), tmp_path / "replay")
    restored.set_state(load_state(tmp_path / "replay"))
    for one in (buffer, restored):
        one.add(cut(make_episode(2, 50, 30), 12, 30))
    for _ in range(3):
        ours, theirs = buffer.sample(33), restored.sample(33)
        for name in ours:
            assert ours[name].tobytes() == theirs[name].tobytes(), name
    assert restored.num_gaps == 0


def test_an_empty_buffer_round_trips(tmp_path: Path) -> None:
    save_state(make_buffer(3, 40).get_state(), tmp_path / "replay")
    restored = filled_buffer()
    restored.set_state(load_state(tmp_path / "replay"))
    assert len(restored) == 0


def test_nothing_is_pickled(tmp_path: Path) -> None:
    save_state(filled_buffer().get_state(), tmp_path / "replay")
    files = [file for file in (tmp_path / "replay").rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".npy", ".json"}
    assert (tmp_path / "replay/rings/2/columns/obs.npy") in files
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        save_state({"bad": np.array([object()])}, tmp_path / "other")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "replay"
    save_state(filled_buffer().get_state(), folder)
    column = folder / "rings" / "0" / "columns" / "obs.npy"
    whole = column.read_bytes()
    column.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"columns/obs\.npy"):
        load_state(folder)
    column.write_bytes(whole)
    (folder / "values.json").unlink()
    with pytest.raises(UserError, match=r"values\.json"):
        load_state(folder)
