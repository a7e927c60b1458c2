"""Checks of what users and callers pass to the replay buffer; each message names the fix."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rllib_ezm.replay.columns import ReplayDtype, float_columns
from rllib_ezm.replay.slots import SlotArrays
from rllib_ezm.replay.sum_tree import SumTree


def column_bytes(
    num_tasks: int, capacity_per_task: int, obs_dim: int, action_dim: int, dtype: ReplayDtype
) -> int:
    """Bytes of the floats of a `MultiTaskReplayBuffer`, wherever they are."""
    columns = float_columns(num_tasks * capacity_per_task, obs_dim, action_dim, dtype)
    return sum(column.nbytes for column in columns.values())


def required_bytes(
    num_tasks: int,
    capacity_per_task: int,
    obs_dim: int,
    action_dim: int,
    independent: bool,
    dtype: ReplayDtype = "float32",
) -> int:
    """Bytes of the slots, their floats and the sum trees of a `MultiTaskReplayBuffer`."""
    num_slots = num_tasks * capacity_per_task
    slots = num_slots * SlotArrays.bytes_per_slot()
    slots += column_bytes(num_tasks, capacity_per_task, obs_dim, action_dim, dtype)
    if independent:
        return slots + SumTree.required_bytes(capacity_per_task, num_tasks)
    return slots + SumTree.required_bytes(num_slots, 1)


def check_budget(
    max_bytes: int,
    num_tasks: int,
    capacity_per_task: int,
    obs_dim: int,
    action_dim: int,
    independent: bool,
    dtype: ReplayDtype = "float32",
) -> None:
    """Raises ValueError if the buffer would need more than `max_bytes`, naming what fits."""

    def needed(capacity: int) -> int:
        return required_bytes(num_tasks, capacity, obs_dim, action_dim, independent, dtype)

    if needed(capacity_per_task) <= max_bytes:
        return
    fits, too_many = 0, capacity_per_task
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if needed(middle) <= max_bytes:
            fits = middle
        else:
            too_many = middle
    fix = (
        f"set capacity_per_task to at most {fits}"
        if fits >= 2
        else "raise the budget; not even the smallest buffer fits"
    )
    raise ValueError(
        f"The replay buffer needs {needed(capacity_per_task):,} bytes for {num_tasks} tasks of "
        f"{capacity_per_task} observations ({obs_dim=}, {action_dim=}), more than "
        f"max_bytes={max_bytes:,}: {fix}."
    )


def check_sizes(**sizes: tuple[int, int]) -> None:
    """Raises ValueError unless every `name=(size, least)` has `size >= least`."""
    for name, (size, least) in sizes.items():
        if size < least:
            raise ValueError(f"{name} must be at least {least}, got {size}.")


def check_fractions(**fractions: float) -> None:
    """Raises ValueError unless every value is in [0, 1]."""
    for name, value in fractions.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must be in [0, 1], got {value}.")


def check_priorities(priorities: npt.NDArray[np.floating[Any]], rows: int) -> None:
    """Raises ValueError unless these are `rows` priorities."""
    if priorities.shape != (rows,):
        raise ValueError(f"There must be {rows} priorities, got shape {priorities.shape}.")
    if not (np.isfinite(priorities) & (priorities >= 0.0)).all():
        raise ValueError("Priorities must be finite and >= 0; has the value loss diverged?")


def check_targets(targets: npt.NDArray[np.floating[Any]], rows: int, action_dim: int) -> None:
    """Raises ValueError unless these are search targets of `rows` states."""
    if targets.shape != (rows, 1 + 2 * action_dim):
        raise ValueError(
            f"Targets of {rows} states need shape {(rows, 1 + 2 * action_dim)}, got "
            f"{targets.shape}."
        )
    if not np.isfinite(targets).all():
        raise ValueError("Search targets must be finite; has the world model diverged?")


def check_index(
    task_ids: npt.NDArray[Any], index: npt.NDArray[Any], num_tasks: int, ring_capacity: int
) -> None:
    """Raises ValueError unless `sample` can have returned these."""
    if index.shape != (len(task_ids), 2):
        raise ValueError(
            f"An index of {len(task_ids)} task_ids needs shape {(len(task_ids), 2)}, got "
            f"{index.shape}."
        )
    if not ((task_ids >= 0) & (task_ids < num_tasks)).all():
        raise ValueError(f"task_ids must be in [0, {num_tasks}).")
    slots, generations = index[:, 0], index[:, 1]
    if not ((slots >= 0) & (slots < ring_capacity) & (generations > 0)).all():
        raise ValueError("index must come from `sample` of this buffer.")
