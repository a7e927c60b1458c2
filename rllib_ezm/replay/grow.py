"""A stored buffer in a new one, of other tasks and larger padded dims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]

OBSERVATIONS = ("obs",)
ACTIONS = ("actions", "policy_means", "policy_stds", "search_actions")
"""Columns with a padded dim; the last one is of earlier commits."""


class PaddedArray:
    """Rows [M, dim] with zeros behind them up to `width`, made in memory when they are used.

    Args:
        rows: An array, or what becomes one, as `SegmentedArray`.
        width: At least dim.
    """

    def __init__(self, rows: Any, width: int) -> None:
        self._rows, self._width = rows, width

    def __len__(self) -> int:
        return len(self._rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> AnyArray:
        rows = np.asarray(self._rows)
        padded: AnyArray = np.zeros((len(rows), self._width), dtype or rows.dtype)
        padded[:, : rows.shape[1]] = rows
        return padded


def keep_rings(
    empty: Mapping[str, Any], stored: Mapping[str, Any], source: Sequence[int | None]
) -> dict[str, Any]:
    """The state of a new buffer that holds what another one has of the tasks that both know.

    Searches of the stored states count as made before the first update.

    Args:
        empty: Of `get_state` of the new buffer, with a ring per task; not changed.
        stored: Of the other one, with rings of the same capacity, not changed.
        source: For each task of `empty` its id in `stored`; None where it is not known there.

    Raises:
        ValueError: The rings are not one per task, or have another capacity.
    """
    new, old = empty["layout"], stored["layout"]
    if not (new["independent"] and old["independent"]):
        raise ValueError("Rings can be kept where each task has its own (independent).")
    if new["ring_capacity"] != old["ring_capacity"]:
        raise ValueError(
            f"The stored rings hold {old['ring_capacity']} observations, these "
            f"{new['ring_capacity']}: build the buffer with the capacity of the stored ones."
        )
    rings = dict(empty["rings"])
    for task, known in enumerate(source):
        if known is not None:
            rings[str(task)] = _ring(stored["rings"][str(known)], known, task, new)
    return {**empty, "rings": rings}


def _ring(
    ring: Mapping[str, Any], known: int, task: int, layout: Mapping[str, int]
) -> dict[str, Any]:
    counters, columns = ring["counters"], dict(ring["columns"])
    for names, width in ((OBSERVATIONS, layout["obs_dim"]), (ACTIONS, layout["action_dim"])):
        for name in columns.keys() & set(names):
            columns[name] = PaddedArray(columns[name], width)
    columns["tasks"] = np.full(len(columns["tasks"]), task, np.int32)
    columns["searched_at"] = np.zeros(len(columns["tasks"]), np.int64)
    counts = {}
    for name in ("added", "stored"):
        counts[name] = np.zeros(layout["num_tasks"], np.int64)
        counts[name][task] = np.asarray(counters[name])[known]
    ongoing = np.full_like(np.asarray(counters["ongoing_tasks"]), task)
    return {"counters": {**counters, **counts, "ongoing_tasks": ongoing}, "columns": columns}
