"""Reading segments: follow the links from sampled starts and gather every field at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rllib_ezm.replay.slots import TERMINAL, IntArray, SlotArrays

AnyArray = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]


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
    starts: IntArray,
    capacity: int,
    unroll_steps: int,
    td_steps: int,
) -> dict[str, npt.NDArray[np.generic]]:
    """Columns of the segments that begin at `starts`.

    Args:
        slots: Slot arrays of all rings.
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
    roots, missing_roots = chain[:, : unroll_steps + 1], ~exists[:, : unroll_steps + 1]

    def masked(field: AnyArray, where: IntArray, missing: BoolArray) -> AnyArray:
        rows = field.take(where, axis=0)
        rows[missing] = 0
        return rows

    return {
        "obs": slots.obs.take(chain, axis=0),
        "actions": masked(slots.actions, roots, missing_roots),
        "rewards": masked(slots.rewards, chain[:, :-1], ~exists),
        "step_mask": exists.astype(np.float32),
        "terminal": (slots.kinds.take(chain[:, -1]) == TERMINAL).astype(np.float32),
        "task_ids": slots.tasks.take(starts).astype(np.int64),
        "search_values": masked(slots.search_values, roots, missing_roots),
        "policy_means": masked(slots.policy_means, roots, missing_roots),
        "policy_stds": masked(slots.policy_stds, roots, missing_roots),
        "searched_at": masked(slots.searched_at, roots, missing_roots),
        "state_index": np.stack([roots % capacity, slots.serials.take(roots)], axis=-1),
    }
