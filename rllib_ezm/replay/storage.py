"""A replay buffer's state on disk: one plain .npy file per array, the rest as JSON, no pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rllib_ezm.utils.errors import UserError

VALUES_FILE = "values.json"


def save_state(state: Mapping[str, Any], folder: Path) -> None:
    """Writes a nested dict of arrays, ints and strings, e.g. `MultiTaskReplayBuffer.get_state()`.

    The array `state["rings"]["0"]["columns"]["obs"]` becomes `rings/0/columns/obs.npy`; everything
    else goes to `values.json` under such a path.

    Args:
        state: Keys are strings without "/".
        folder: Created; must not exist.

    Raises:
        FileExistsError: The folder exists.
        OSError: The disk is full or not writable.
    """
    folder.mkdir(parents=True)
    values: dict[str, int | str] = {}
    for name, leaf in _leaves(state):
        if isinstance(leaf, np.ndarray):
            file = folder / f"{name}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, leaf, allow_pickle=False)
        else:
            values[name] = leaf
    (folder / VALUES_FILE).write_text(json.dumps(values, indent=1) + "\n")


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
    for file in sorted(folder.rglob("*.npy")):
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{file} cannot be read: {error}") from error
        leaves[file.relative_to(folder).with_suffix("").as_posix()] = array
    for name, leaf in leaves.items():
        *path, last = name.split("/")
        place = state
        for key in path:
            place = place.setdefault(key, {})
        place[last] = leaf
    return state


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a nested dict with its keys joined by "/"."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value
