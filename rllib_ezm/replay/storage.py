"""A replay buffer's state on disk: plain .npy files for each array, the rest as JSON, no pickle."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rllib_ezm.utils.errors import UserError

VALUES_FILE = "values.json"

SEGMENT_ROWS = 8192
"""Rows of an array in one file. A longer array has several, of which most stay as they are while
the ring fills, and so are not written again."""

_SEGMENT = re.compile(r"(?P<name>.+)\.(?P<number>\d{5})")

AnyArray = npt.NDArray[Any]


class SegmentedArray:
    """An array in several files, which becomes one in memory when it is used.

    Args:
        segments: Its rows in order, mapped from their files.
    """

    def __init__(self, segments: Sequence[AnyArray]) -> None:
        self._segments = segments

    def __len__(self) -> int:
        return sum(len(segment) for segment in self._segments)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> AnyArray:
        whole: AnyArray = np.concatenate(self._segments, dtype=dtype)
        return whole


def save_state(state: Mapping[str, Any], folder: Path, base: Path | None = None) -> int:
    """Writes a nested dict of arrays, ints and strings, e.g. `MultiTaskReplayBuffer.get_state()`.

    The array `state["rings"]["0"]["columns"]["obs"]` becomes `rings/0/columns/obs.npy`, or from
    `SEGMENT_ROWS` on `obs.00000.npy`, `obs.00001.npy` and so on; everything else goes to
    `values.json` under such a path.

    Args:
        state: Keys are strings without "/".
        folder: Created; must not exist.
        base: What this function has written before, on the same disk. A segment whose bytes are
            there already becomes another name (a hard link) of that file, so either folder can be
            deleted without harm to the other.

    Returns:
        Bytes written, without those that were in `base`.

    Raises:
        FileExistsError: The folder exists.
        OSError: The disk is full or not writable.
    """
    folder.mkdir(parents=True)
    values: dict[str, int | str] = {}
    written = 0
    for name, leaf in _leaves(state):
        if not hasattr(leaf, "__array__"):
            values[name] = leaf
            continue
        array = np.asarray(leaf)  # one after the other: of a device, there is room for one
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        for file, rows in _segments(name, array):
            if base is None or not _link_if_equal(rows, base / file, folder / file):
                np.save(folder / file, rows, allow_pickle=False)
                written += rows.nbytes
    (folder / VALUES_FILE).write_text(json.dumps(values, indent=1) + "\n")
    return written


def load_state(folder: Path) -> dict[str, Any]:
    """Reads what `save_state` wrote; arrays are mapped from their files, not read into memory.

    Raises:
        UserError: A file is missing, truncated or of another kind; the message names it.
    """
    values_file = folder / VALUES_FILE
    state: dict[str, Any] = {}
    try:
        leaves: dict[str, Any] = json.loads(values_file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{values_file} cannot be read: {error}") from error
    segments: dict[str, list[AnyArray]] = defaultdict(list)
    for file in sorted(folder.rglob("*.npy")):
        name = file.relative_to(folder).with_suffix("").as_posix()
        match = _SEGMENT.fullmatch(name)
        if match is None:
            leaves[name] = _map(file)
            continue
        if int(match["number"]) != len(segments[match["name"]]):
            raise UserError(f"The files before {file} are missing.")
        segments[match["name"]].append(_map(file))
    for name, leaf in {**leaves, **{n: SegmentedArray(s) for n, s in segments.items()}}.items():
        *path, last = name.split("/")
        place = state
        for key in path:
            place = place.setdefault(key, {})
        place[last] = leaf
    return state


def _map(file: Path) -> AnyArray:
    try:
        array: AnyArray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    return array


def _segments(name: str, array: AnyArray) -> Iterator[tuple[str, AnyArray]]:
    """The files of an array: their names and rows."""
    if array.ndim == 0 or len(array) <= SEGMENT_ROWS:
        yield f"{name}.npy", array
        return
    for number, start in enumerate(range(0, len(array), SEGMENT_ROWS)):
        yield f"{name}.{number:05d}.npy", array[start : start + SEGMENT_ROWS]


def _link_if_equal(rows: AnyArray, old: Path, new: Path) -> bool:
    """Names the old file anew if it holds exactly these rows; so a damaged one is written again."""
    if rows.ndim == 0 or len(rows) < SEGMENT_ROWS:
        return False
    try:
        stored = np.load(old, allow_pickle=False)
        if stored.dtype != rows.dtype or stored.shape != rows.shape:
            return False
        if not np.array_equal(stored.view(np.uint8), np.ascontiguousarray(rows).view(np.uint8)):
            return False
        os.link(old, new)
    except (OSError, ValueError, EOFError):  # no such file, another disk, no hard links there
        return False
    return True


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a nested dict with its keys joined by "/"."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value
