"""Checkpoint folders that are whole or absent: written under a temporary name, with a manifest."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.fs

from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.importing import IMPORT_FOLDERS, import_folders

logger = logging.getLogger(__name__)

MANIFEST_FILE = "ezm_manifest.json"
FORMAT = 4
READABLE = (3, 4)
"""Format 4: a long array of the replay buffer is in several files."""

LAST_FLAT_VERSION = "commit d72cad0 of rllib_ezm"
"""The last version before the package was divided into rooms; RLlib pickles module names."""

READERS = {2: LAST_FLAT_VERSION}
"""Format of a manifest -> the last version that reads it."""

PACKAGES = ("rllib-ezm", "ray", "torch", "numpy", "gymnasium", "mujoco", "dm-control")

_BLOCK = 2**22


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place when the block ends without an exception.

    After an exception nothing is left of it, and a `target` that existed is as it was.

    Args:
        target: Where the folder shall be; replaced if it exists.

    Yields:
        The empty temporary folder, on the same file system.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    temporary = target.with_name(f".{target.name}.{mark}.partial")
    temporary.mkdir()
    try:
        yield temporary
        _swap(temporary, target, target.with_name(f".{target.name}.{mark}.previous"))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _swap(temporary: Path, target: Path, previous: Path) -> None:
    if not target.exists():
        temporary.rename(target)
        return
    target.rename(previous)
    try:
        temporary.rename(target)
    except OSError:
        previous.rename(target)
        raise
    shutil.rmtree(previous)


@contextmanager
def writable_folder(target: str | Path, filesystem: pyarrow.fs.FileSystem | None) -> Iterator[Path]:
    """A local folder whose content is at `target` afterwards: moved there, or uploaded."""
    filesystem, place = resolve(target, filesystem)
    if isinstance(filesystem, pyarrow.fs.LocalFileSystem):
        with whole_folder(Path(place)) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
        pyarrow.fs.copy_files(name, place, destination_filesystem=filesystem)


@contextmanager
def readable_folder(source: str | Path, filesystem: pyarrow.fs.FileSystem | None) -> Iterator[Path]:
    """The checkpoint `source` as a local folder: itself, or a download of it."""
    filesystem, place = resolve(source, filesystem)
    if isinstance(filesystem, pyarrow.fs.LocalFileSystem):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory() as name:
        pyarrow.fs.copy_files(place, name, source_filesystem=filesystem)
        yield Path(name)


def resolve(
    path: str | Path, filesystem: pyarrow.fs.FileSystem | None
) -> tuple[pyarrow.fs.FileSystem, str]:
    """The file system of a path or URI, and the place on it.

    Args:
        path: Local, relative or not, or a URI; a place on `filesystem` if that is given.
        filesystem: None for that of `path`.
    """
    if filesystem is not None:
        return filesystem, str(path)
    if isinstance(path, Path) or "://" not in path:
        return pyarrow.fs.LocalFileSystem(), str(Path(path).absolute())
    resolved: tuple[pyarrow.fs.FileSystem, str] = pyarrow.fs.FileSystem.from_uri(path)
    return resolved


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a run depends on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def compare_versions(folder: Path, written: dict[str, str]) -> None:
    """Warn if packages differ from those that wrote the checkpoint."""
    installed = package_versions()
    names = sorted(written | installed)
    changed = [
        f"{name} {written.get(name, 'absent')} -> {installed.get(name, 'absent')}"
        for name in names
        if written.get(name) != installed.get(name)
    ]
    if changed:
        logger.warning(
            "%s was written with other versions (%s): the run goes on, but not bit for bit as it "
            "would have there.",
            folder,
            ", ".join(changed),
        )


def write_manifest(folder: Path) -> None:
    """Writes sizes and checksums (CRC-32) of all files in `folder`, versions, import folders."""
    files = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "crc32": _crc32(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / MANIFEST_FILE
    }
    manifest = {
        "format": FORMAT,
        "versions": package_versions(),
        IMPORT_FOLDERS: import_folders(),
        "files": files,
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint: `format`, `versions`, and `files` (path -> bytes, crc32).

    Raises:
        UserError: There is none, or one that this version cannot read.
    """
    file = folder / MANIFEST_FILE
    if not file.is_file():
        raise UserError(
            f"{folder} is not a whole checkpoint of EZM: it lacks {MANIFEST_FILE}. Restore from "
            "another checkpoint."
        )
    try:
        manifest: dict[str, Any] = json.loads(file.read_text())
        version = manifest["format"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{file} is damaged ({error!r}); restore from another checkpoint."
        ) from None
    if version not in READABLE:
        reader = READERS.get(version, "the version that wrote it")
        raise UserError(
            f"{file} has format {version}, this version of rllib_ezm reads {FORMAT}: restore it "
            f"with {reader}."
        )
    flaw = _flaw_of(manifest)
    if flaw is not None:
        raise UserError(f"{file} is damaged ({flaw}); restore from another checkpoint.")
    return manifest


def _flaw_of(manifest: dict[str, Any]) -> str | None:
    """What keeps a manifest of this format from being used."""
    for name in ("files", "versions"):
        if not isinstance(manifest.get(name), dict):
            return f"{name!r} is not an object"
    for name, entry in manifest["files"].items():
        if not isinstance(entry, dict):
            return f"the entry of {name!r} is not an object"
        for key in ("bytes", "crc32"):
            if not isinstance(entry.get(key), int):
                return f"{key!r} of {name!r} is not a number"
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"{name!r} lies outside of the checkpoint"
    return None


def verify(folder: Path, within: Sequence[str] = ("",)) -> dict[str, Any]:
    """Compares the files of a checkpoint with its manifest.

    Args:
        folder: The checkpoint.
        within: Prefixes of the files to compare; all by default.

    Returns:
        The manifest.

    Raises:
        UserError: A file is missing, truncated, not the one that was written, or not in the
            manifest; names the file. Hidden files are not looked at: Tune adds some.
    """
    manifest = read_manifest(folder)
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        known = name in manifest["files"] or name == MANIFEST_FILE or file.name.startswith(".")
        if name.startswith(tuple(within)) and file.is_file() and not known:
            raise UserError(f"The checkpoint holds a file that is not in its manifest: {file}.")
    for name, expected in manifest["files"].items():
        if not name.startswith(tuple(within)):
            continue
        file = folder / name
        if not file.is_file():
            raise UserError(f"The checkpoint is incomplete: {file} is missing.")
        size = file.stat().st_size
        if size != expected["bytes"]:
            raise UserError(
                f"The checkpoint is damaged: {file} has {size:,} bytes instead of "
                f"{expected['bytes']:,}."
            )
        if _crc32(file) != expected["crc32"]:
            raise UserError(
                f"The checkpoint is damaged: {file} is not the file that was written (checksum)."
            )
    return manifest


def _crc32(file: Path) -> int:
    checksum = 0
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum
