"""A buffer's state survives the disk; files that cannot be read are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.replay_episodes import cut, make_buffer, make_episode

from rllib_ezm.replay import MultiTaskReplayBuffer, storage
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


def long_buffer(monkeypatch: pytest.MonkeyPatch) -> MultiTaskReplayBuffer:
    """One ring of 40 slots, 30 of them full: three segments and a part of one."""
    monkeypatch.setattr(storage, "SEGMENT_ROWS", 9)
    buffer = make_buffer(3, 40)
    for number in range(3):
        buffer.add(make_episode(0, number, 9, terminated=True))
    return buffer


def shared(one: Path, other: Path) -> set[str]:
    """Files of both folders that are one file on the disk."""
    return {file.name for file in one.rglob("obs*") if file.samefile(other / file.relative_to(one))}


def test_only_what_is_new_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = long_buffer(monkeypatch)
    first = save_state(buffer.get_state(), tmp_path / "1")
    buffer.add(make_episode(0, 3, 5, terminated=True))
    second = save_state(buffer.get_state(copy=False), tmp_path / "2", tmp_path / "1")
    assert second < first
    assert shared(tmp_path / "1", tmp_path / "2") == {
        "obs.00000.npy",
        "obs.00001.npy",
        "obs.00002.npy",
    }
    for number in range(4, 7):  # the ring is full: the oldest slots are overwritten
        buffer.add(make_episode(0, number, 4, terminated=True))
    save_state(buffer.get_state(), tmp_path / "3", tmp_path / "2")
    assert 0 < len(shared(tmp_path / "2", tmp_path / "3")) < 4
    shutil.rmtree(tmp_path / "1")
    shutil.rmtree(tmp_path / "2")
    restored = make_buffer(3, 40, seed=9)
    restored.set_state(load_state(tmp_path / "3"))
    for _ in range(3):
        ours, theirs = buffer.sample(33), restored.sample(33)
        assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_damaged_segment_is_not_taken_over(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = long_buffer(monkeypatch)
    save_state(buffer.get_state(), tmp_path / "1")
    file = tmp_path / "1/rings/0/columns/obs.00001.npy"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    if damage == "delete":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flip" else content[:-5])
    save_state(buffer.get_state(), tmp_path / "2", tmp_path / "1")
    restored = load_state(tmp_path / "2")["rings"]["0"]["columns"]
    columns = buffer.get_state()["rings"]["0"]["columns"]
    assert len(restored["obs"]) == len(columns["obs"]) == 30
    assert all(np.asarray(restored[name]).tobytes() == columns[name].tobytes() for name in columns)


def test_a_missing_segment_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(long_buffer(monkeypatch).get_state(), tmp_path / "1")
    (tmp_path / "1/rings/0/columns/obs.00001.npy").unlink()
    with pytest.raises(UserError, match=r"before .*obs\.00002\.npy are missing"):
        load_state(tmp_path / "1")
