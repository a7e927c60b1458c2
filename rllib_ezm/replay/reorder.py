"""A stored buffer whose tasks get other ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def reorder_tasks(state: Mapping[str, Any], source: Sequence[int]) -> dict[str, Any]:
    """The state of a buffer as it would be, had its tasks had another order.

    Args:
        state: Of `MultiTaskReplayBuffer.get_state` or `ReplayActors.get_state`, not changed.
        source: For each task its id in `state`: a permutation.
    """
    if list(source) == sorted(source):
        return dict(state)
    old_ids = np.asarray(source)
    new_ids = np.argsort(old_ids)
    independent = bool(state["layout"]["independent"])
    rings = {
        name: _ring(state["rings"][str(old) if independent else name], old_ids, new_ids)
        for name, old in zip(state["rings"], source, strict=False)
    }
    return {**state, "rings": rings}


def _ring(ring: Mapping[str, Any], old_ids: np.ndarray, new_ids: np.ndarray) -> dict[str, Any]:
    counters, columns = ring["counters"], ring["columns"]
    tasks = np.asarray(columns["tasks"])
    return {
        "counters": {
            **counters,
            "added": np.asarray(counters["added"])[old_ids],
            "stored": np.asarray(counters["stored"])[old_ids],
            "ongoing_tasks": new_ids[np.asarray(counters["ongoing_tasks"])],
        },
        "columns": {**columns, "tasks": new_ids[tasks].astype(tasks.dtype)},
    }
