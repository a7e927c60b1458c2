"""Writing into one ring: chunks become linked slots, the oldest slots are overwritten."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rllib_ezm.replay.chunk import EpisodeChunk
from rllib_ezm.replay.columns import FloatColumns
from rllib_ezm.replay.slots import (
    NO_SUCCESSOR,
    PENDING,
    TERMINAL,
    TRANSITION,
    TRUNCATED,
    IntArray,
    SlotArrays,
)
from rllib_ezm.replay.sum_tree import SumTree

EpisodeKey = tuple[int, str]


class Ring:
    """One fixed-capacity ring inside the shared slot arrays and the shared sum tree.

    Every state links to the next by serial number. A successor is always written after its
    predecessor and so is evicted after it: from a stored slot, no link leads to an overwritten one.
    """

    def __init__(
        self,
        index: int,
        capacity: int,
        num_tasks: int,
        slots: SlotArrays,
        columns: FloatColumns,
        tree: SumTree,
    ) -> None:
        """Makes an empty ring.

        Args:
            index: Number of the ring; it owns slots `[index * capacity, (index + 1) * capacity)`
                and tree `index`.
            capacity: Slots (observations) of the ring.
            num_tasks: Number of tasks `T`, for the per-task counts.
            slots: Slot arrays of all rings.
            columns: Their floats.
            tree: Priorities of all rings; 0 for everything that is not a TRANSITION.
        """
        self.index = index
        self.capacity = capacity
        self.slots = slots
        self.columns = columns
        self.tree = tree
        self.written = 0
        self.num_gaps = 0
        self.added: IntArray = np.zeros(num_tasks, np.int64)
        self.stored: IntArray = np.zeros(num_tasks, np.int64)
        # Serial of the pending slot and next step of each ongoing episode. A continued episode is
        # put back at the end, so the serials ascend and the stalest entry comes first.
        self.ongoing: dict[EpisodeKey, tuple[int, int]] = {}

    @property
    def filled(self) -> int:
        """Number of slots in use; they are the first ones of the ring."""
        return min(self.written, self.capacity)

    def slot_of(self, serials: IntArray) -> IntArray:
        """Slot within the ring of each serial number."""
        return (serials - 1) % self.capacity

    def add(self, chunk: EpisodeChunk) -> None:
        """Stores a chunk; see `MultiTaskReplayBuffer.add`."""
        serials = self._assign_serials(chunk)
        skip = int(np.searchsorted(serials, self.written - self.capacity, side="right"))
        places = self.slot_of(serials[skip:])
        slots = self.index * self.capacity + places
        priority = self.tree.maximum(self.index) or 1.0

        self._count(chunk, evicted=slots, stored=len(slots) - 1)
        self._write(chunk, serials, skip, slots)
        priorities = np.full(len(places), priority)
        priorities[-1] = 0.0
        self.tree.set(self.index, places, priorities)

        if not (chunk.terminated or chunk.truncated):
            key = (chunk.task_id, chunk.episode_id)
            self.ongoing[key] = (int(serials[-1]), chunk.start + len(chunk))
        self._forget_overwritten_episodes()

    def _assign_serials(self, chunk: EpisodeChunk) -> IntArray:
        """Serials of the chunk's states: the pending slot it continues, if any, then new ones."""
        pending = self._pop_pending(chunk)
        num_new = len(chunk) + (pending is None)
        new = np.arange(self.written + 1, self.written + 1 + num_new)
        self.written += num_new
        return new if pending is None else np.concatenate(([pending], new))

    def _pop_pending(self, chunk: EpisodeChunk) -> int | None:
        """Serial of the stored slot that the chunk continues, or None if it starts a new one."""
        key = (chunk.task_id, chunk.episode_id)
        if key not in self.ongoing:
            return None
        serial, step = self.ongoing[key]
        if chunk.start < step:
            raise ValueError(
                f"{chunk}: this episode is already stored up to step {step}; add every chunk "
                "once and in order, and give every episode its own id."
            )
        if chunk.start > step:
            del self.ongoing[key]
            self.num_gaps += 1
            return None
        slot = self.index * self.capacity + (serial - 1) % self.capacity
        if not self.columns.holds(slot, chunk.observations[0]):
            raise ValueError(
                f"{chunk}: its first observation differs from the last one of the previous chunk; "
                "chunks of an episode must share the observation between them."
            )
        del self.ongoing[key]
        return serial

    def _count(self, chunk: EpisodeChunk, evicted: IntArray, stored: int) -> None:
        overwritten = evicted[self.slots.kinds[evicted] == TRANSITION]
        lost = np.bincount(self.slots.tasks[overwritten], minlength=len(self.stored))
        self.stored -= lost
        self.stored[chunk.task_id] += stored
        self.added[chunk.task_id] += len(chunk)

    def _write(self, chunk: EpisodeChunk, serials: IntArray, skip: int, slots: IntArray) -> None:
        fields, columns = self.slots, self.columns
        last, starts = slots[-1], slots[:-1]
        columns.write("obs", slots, chunk.observations[skip:])
        if len(starts):
            columns.write("actions", starts, chunk.actions[skip:])
            columns.write("rewards", starts, chunk.rewards[skip:])
            columns.write("search_values", starts, chunk.search_values[skip:])
            columns.write("policy_means", starts, chunk.policy_means[skip:])
            columns.write("policy_stds", starts, chunk.policy_stds[skip:])
        fields.serials[slots] = serials[skip:]
        fields.tasks[slots] = chunk.task_id
        fields.searched_at[starts] = chunk.searched_at
        fields.successors[starts] = serials[skip + 1 :]
        fields.kinds[starts] = TRANSITION
        added = self.added[chunk.task_id]
        fields.ordinals[starts] = np.arange(added - len(starts) + 1, added + 1)
        fields.successors[last] = NO_SUCCESSOR
        fields.kinds[last] = final_kind(chunk)

    def _forget_overwritten_episodes(self) -> None:
        """Drops ongoing episodes whose pending slot is gone; they go on in a new slot."""
        oldest = self.written - self.capacity + 1
        while self.ongoing:
            key, (serial, _) = next(iter(self.ongoing.items()))
            if serial >= oldest:
                return
            del self.ongoing[key]

    def get_state(self) -> dict[str, int | npt.NDArray[np.generic]]:
        """Counters and ongoing episodes as ints and arrays (the slots are saved by the buffer)."""
        keys, values = list(self.ongoing), list(self.ongoing.values())
        return {
            "written": self.written,
            "num_gaps": self.num_gaps,
            "added": self.added.copy(),
            "stored": self.stored.copy(),
            "ongoing_tasks": np.array([task for task, _ in keys], np.int64),
            "ongoing_ids": np.array([episode for _, episode in keys], np.str_),
            "ongoing_serials": np.array([serial for serial, _ in values], np.int64),
            "ongoing_steps": np.array([step for _, step in values], np.int64),
        }

    def set_state(self, state: dict[str, int | npt.NDArray[np.generic]]) -> None:
        """Restores what `get_state` returned."""
        arrays = {name: np.asarray(value) for name, value in state.items()}
        self.written = int(arrays["written"])
        self.num_gaps = int(arrays["num_gaps"])
        self.added[:] = arrays["added"]
        self.stored[:] = arrays["stored"]
        names = ("ongoing_tasks", "ongoing_ids", "ongoing_serials", "ongoing_steps")
        rows = zip(*(arrays[name].tolist() for name in names), strict=True)
        self.ongoing = {(task, name): (serial, step) for task, name, serial, step in rows}


def final_kind(chunk: EpisodeChunk) -> int:
    """Kind of the slot that holds the chunk's last observation."""
    if chunk.terminated:
        return TERMINAL
    return TRUNCATED if chunk.truncated else PENDING
