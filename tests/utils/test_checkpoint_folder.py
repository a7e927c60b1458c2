"""Checkpoint folders are whole or absent, and say which file is not as it was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rllib_ezm.utils.checkpoint_folder import MANIFEST_FILE, verify, whole_folder, write_manifest
from rllib_ezm.utils.errors import UserError


def write(folder: Path, text: str) -> None:
    (folder / "part").mkdir()
    (folder / "part" / "weights.bin").write_text(text)
    (folder / "state.bin").write_text(text * 2)
    write_manifest(folder)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    with whole_folder(tmp_path / "runs" / "checkpoint") as folder:
        write(folder, "first")
    return tmp_path / "runs" / "checkpoint"


def test_a_whole_folder_replaces_the_old_one_and_leaves_nothing_beside_it(checkpoint: Path) -> None:
    with whole_folder(checkpoint) as folder:
        write(folder, "second")
        assert (checkpoint / "state.bin").read_text() == "firstfirst"
    assert (checkpoint / "part" / "weights.bin").read_text() == "second"
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint"]
    verify(checkpoint)


def break_off(target: Path, error: BaseException) -> None:
    with whole_folder(target) as folder:
        (folder / "state.bin").write_text("half")
        raise error


def test_a_fault_leaves_the_old_folder_as_it_was(checkpoint: Path) -> None:
    with pytest.raises(OSError, match="disk full"):
        break_off(checkpoint, OSError("disk full"))
    verify(checkpoint)
    assert (checkpoint / "state.bin").read_text() == "firstfirst"
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint"]


def test_a_fault_at_the_first_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        break_off(tmp_path / "checkpoint", KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_the_files_are_compared_with_the_manifest(checkpoint: Path) -> None:
    weights = checkpoint / "part" / "weights.bin"
    (checkpoint / ".metadata.json").touch()  # added by Tune
    manifest = verify(checkpoint)
    assert manifest["files"]["part/weights.bin"]["bytes"] == len("first")
    assert set(manifest["versions"]) >= {"python", "ray", "torch", "numpy"}
    weights.write_text("firs")
    with pytest.raises(UserError, match=r"weights\.bin has 4 bytes instead of 5"):
        verify(checkpoint)
    weights.write_text("other")
    with pytest.raises(UserError, match=r"weights\.bin is not the file that was written"):
        verify(checkpoint)
    verify(checkpoint, within=("state.bin",))
    weights.unlink()
    with pytest.raises(UserError, match=r"weights\.bin is missing"):
        verify(checkpoint)


def test_a_manifest_that_cannot_be_read_is_an_error(checkpoint: Path) -> None:
    file = checkpoint / MANIFEST_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(UserError, match=r"has format 99.*the version that wrote it"):
        verify(checkpoint)
    file.write_text(json.dumps({"format": 2, "versions": {}, "files": {}}))
    with pytest.raises(UserError, match=r"has format 2.*restore it with commit d72cad0"):
        verify(checkpoint)
    file.write_text("{")
    with pytest.raises(UserError, match=f"{MANIFEST_FILE} is damaged"):
        verify(checkpoint)
    file.unlink()
    with pytest.raises(UserError, match=f"lacks {MANIFEST_FILE}"):
        verify(checkpoint)


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (lambda manifest: manifest.pop("files"), "'files' is not an object"),
        (lambda manifest: manifest.update(files=[]), "'files' is not an object"),
        (lambda manifest: manifest.pop("versions"), "'versions' is not an object"),
        (lambda manifest: manifest.update(versions=["3.11"]), "'versions' is not an object"),
        (
            lambda manifest: manifest["files"].update({"state.bin": []}),
            "the entry of 'state.bin' is not an object",
        ),
        (
            lambda manifest: manifest["files"]["state.bin"].pop("crc32"),
            "'crc32' of 'state.bin' is not a number",
        ),
        (
            lambda manifest: manifest["files"]["state.bin"].update(bytes="10"),
            "'bytes' of 'state.bin' is not a number",
        ),
        (
            lambda manifest: manifest["files"].update({"../x": {"bytes": 0, "crc32": 0}}),
            r"'\.\./x' lies outside",
        ),
    ],
)
def test_a_damaged_manifest_is_one_line(
    checkpoint: Path, change: Callable[[dict[str, Any]], Any], flaw: str
) -> None:
    file = checkpoint / MANIFEST_FILE
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"{MANIFEST_FILE} is damaged .{flaw}"):
        verify(checkpoint)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"files"', "\ud800"])
def test_a_manifest_of_another_kind_is_one_line(checkpoint: Path, content: str) -> None:
    (checkpoint / MANIFEST_FILE).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=f"{MANIFEST_FILE} is damaged"):
        verify(checkpoint)


def test_a_file_without_an_entry_is_refused(checkpoint: Path) -> None:
    file = checkpoint / MANIFEST_FILE
    manifest = json.loads(file.read_text())
    del manifest["files"]["part/weights.bin"]
    file.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"not in its manifest: .*part/weights\.bin"):
        verify(checkpoint)
    verify(checkpoint, within=("state.bin",))
