"""Reading segments: follow the links from sampled starts and gather every field at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from rllib_ezm.replay.columns import BoolArray, FloatColumns
from rllib_ezm.replay.slots import TERMINAL, IntArray, SlotArrays


def follow(
    slots: SlotArrays, starts: IntArray, capacity: int, length: int
) -> tuple[IntArray, BoolArray]:
    """Follows up to `length` links from each start slot.

    A link is followed only if the slot still holds the serial number that the link names.

    Args:
        slots: Slot arrays of all rings.
        starts: `[B]`, slots of the first states.
        capacity: Slots per ring.
        length: Number of links.

    Returns:
        Slots of the states, `[B, length + 1]`, the last one repeated past the end, and whether
        transition i exists, `[B, length]`.
    """
    chain = np.empty((len(starts), length + 1), np.int64)
    exists = np.empty((len(starts), length), np.bool_)
    base = starts - starts % capacity
    current = starts
    chain[:, 0] = starts
    for step in range(length):
        successors = slots.successors.take(current)
        following = base + (successors - 1) % capacity
        exists[:, step] = slots.serials.take(following) == successors
        current = np.where(exists[:, step], following, current)
        chain[:, step + 1] = current
    return chain, exists


def gather(
    slots: SlotArrays,
    columns: FloatColumns,
    starts: IntArray,
    capacity: int,
    unroll_steps: int,
    td_steps: int,
) -> dict[str, Any]:
    """Columns of the segments that begin at `starts`.

    Args:
        slots: Slot arrays of all rings.
        columns: Their floats, which stay where they are.
        starts: `[B]`, slots of the first states.
        capacity: Slots per ring.
        unroll_steps: `K`.
        td_steps: `n`.

    Returns:
        `obs` [B, K+n+1, D], `actions` [B, K+1, A], `rewards` [B, K+n], `step_mask` [B, K+n],
        `terminal` [B], `task_ids` [B], `search_values`, `searched_at` [B, K+1], `policy_means`,
        `policy_stds` [B, K+1, A], `state_index` [B, K+1, 2]; see `MultiTaskReplayBuffer.sample`.
    """
    chain, exists = follow(slots, starts, capacity, unroll_steps + td_steps)
    roots = chain[:, : unroll_steps + 1]
    return {
        **columns.gather(chain, exists, unroll_steps),
        "step_mask": exists.astype(np.float32),
        "terminal": (slots.kinds.take(chain[:, -1]) == TERMINAL).astype(np.float32),
        "task_ids": slots.tasks.take(starts).astype(np.int64),
        "searched_at": slots.searched_at.take(roots) * exists[:, : unroll_steps + 1],
        "state_index": np.stack([roots % capacity, slots.serials.take(roots)], axis=-1),
    }
