"""What lies in the folder of a Tune trial: its checkpoints, and what they say of themselves."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rllib_ezm.utils.checkpoint_folder import MANIFEST_FILE

SAVE_REQUEST = ".save_now"
"""A trial whose folder holds this file ends its iteration early, so that it can be saved."""

STATUS = ".status.json"
"""What the trial is doing between two results."""

RESULT_FILE = "tune_result.json"
"""In a checkpoint: the numbers of the trial's last result, flat."""

RESULTS = ("result.json", "progress.csv")
"""Tune's logs of a trial, a line per result."""

SCORES = ("evaluation/normalized_score_mean", "evaluation/env_runners/episode_return_mean")
"""Result keys by which a checkpoint is the best one; the first that it has."""

_NAME = re.compile(r"checkpoint_(\d{6,})")


def checkpoint_number(folder: Path) -> int | None:
    """The number in the name of a Tune checkpoint; None for anything else."""
    match = _NAME.fullmatch(folder.name)
    return None if match is None else int(match[1])


def checkpoints(trial_folder: Path) -> list[Path]:
    """The checkpoints of a trial, whole or not, the oldest first."""
    if not trial_folder.is_dir():
        return []
    found = [path for path in trial_folder.iterdir() if checkpoint_number(path) is not None]
    return sorted(found, key=lambda path: checkpoint_number(path) or 0)


def next_checkpoint(trial_folder: Path, last_number: int) -> Path:
    """The folder of the next checkpoint, with a number higher than any that is there.

    Args:
        trial_folder: The trial's folder.
        last_number: The last number that is known to have been given; -1 for none.
    """
    there = [checkpoint_number(path) or 0 for path in checkpoints(trial_folder)]
    return trial_folder / f"checkpoint_{max([last_number, *there]) + 1:06d}"


def write_result(checkpoint: Path, result: Mapping[str, Any]) -> None:
    """Write the numbers and strings of a result of Tune, nested keys joined by "/"."""
    flat = {
        name: value
        for name, value in _flat(result)
        if isinstance(value, bool | int | float | str) and not name.startswith("config/")
    }
    (checkpoint / RESULT_FILE).write_text(json.dumps(flat, indent=1) + "\n")


def read_result(checkpoint: Path) -> dict[str, Any]:
    """What `write_result` wrote; empty where there is nothing, or nothing that can be read."""
    try:
        result = json.loads((checkpoint / RESULT_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return result if isinstance(result, dict) else {}


def write_status(trial_folder: Path, status: Mapping[str, Any]) -> None:
    """Say what a trial is doing; replaces what was said before.

    Raises:
        OSError: The disk does not take it.
    """
    temporary = trial_folder / f"{STATUS}.partial"
    temporary.write_text(json.dumps(status))
    os.replace(temporary, trial_folder / STATUS)


def read_status(trial_folder: Path) -> dict[str, Any]:
    """What `write_status` wrote; empty where there is nothing that can be read."""
    try:
        status = json.loads((trial_folder / STATUS).read_text())
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def clear_status(trial_folder: Path) -> None:
    """Say nothing any more. Where the disk does not let go of the file, it stays, harmless."""
    with suppress(OSError):
        (trial_folder / STATUS).unlink()


def score_of(checkpoint: Path) -> float | None:
    """The last evaluation's score before the checkpoint; None before the first evaluation."""
    result = read_result(checkpoint)
    scores = [result[key] for key in SCORES if isinstance(result.get(key), int | float)]
    return float(scores[0]) if scores and scores[0] == scores[0] else None


def surplus_checkpoints(trial_folder: Path, keep: int) -> list[Path]:
    """Whole checkpoints that are neither among the `keep` newest nor the best one."""
    whole = [path for path in checkpoints(trial_folder) if (path / MANIFEST_FILE).is_file()]
    older = whole[:-keep]
    scores = {path: score for path in whole if (score := score_of(path)) is not None}
    best = max(reversed(whole), key=lambda path: scores.get(path, float("-inf")), default=None)
    return [path for path in older if not (path in scores and path == best)]


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint; one that is half deleted is no longer called one.

    Raises:
        OSError: It cannot be deleted.
    """
    hidden = checkpoint.with_name(f".{checkpoint.name}.removed")
    checkpoint.rename(hidden)
    shutil.rmtree(hidden)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value.item() if hasattr(value, "item") else value
