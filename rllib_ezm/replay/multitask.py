"""MultiTaskReplayBuffer: balanced, prioritised segments from one ring per task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rllib_ezm.replay.checks import (
    check_budget,
    check_fractions,
    check_index,
    check_priorities,
    check_sizes,
    check_targets,
)
from rllib_ezm.replay.chunk import EpisodeChunk
from rllib_ezm.replay.columns import (
    HostColumns,
    MakeColumns,
    ReplayDtype,
    current_columns,
    float_columns,
)
from rllib_ezm.replay.ring import Ring
from rllib_ezm.replay.segments import gather
from rllib_ezm.replay.shares import balanced_shares, importance_weights
from rllib_ezm.replay.slots import IntArray, SlotArrays
from rllib_ezm.replay.sum_tree import SumTree

State = dict[str, Any]


class MultiTaskReplayBuffer:
    """Prioritised replay of segments, an equal share of every batch per task.

    Each task has its own ring (IER, section 4.2, arXiv:2603.01452), which overwrites its oldest
    entries when it is full. Every transition added is stored once and can be drawn as the start
    of a segment until it is overwritten; segments never cross the end of an episode. Memory is
    committed only as the rings fill.

    Args:
        num_tasks: `T`.
        capacity_per_task: Observations stored per task. An episode of `L` transitions takes
            `L + 1` of them.
        obs_dim: `D`.
        action_dim: `A`.
        unroll_steps: `K`, at least 1.
        td_steps: `n`, at least 1.
        priority_alpha: Exponent of the priorities, in [0, 1].
        priority_beta: Exponent of the importance weights, in [0, 1].
        priority_epsilon: Added to every priority, > 0.
        min_weight: Floor of the importance weights, in [0, 1].
        independent: One ring per task. False: one ring of `T * capacity_per_task` for all
            tasks, drawn from as a whole (the "-IER" ablation).
        max_bytes: Memory budget; None for no limit.
        seed: Seed of the draws.
        dtype: Of observations and actions in memory; batches have float32.
        make_columns: Where the floats are kept.

    Raises:
        ValueError: A setting is out of range, or the budget is exceeded.
    """

    def __init__(
        self,
        *,
        num_tasks: int,
        capacity_per_task: int,
        obs_dim: int,
        action_dim: int,
        unroll_steps: int,
        td_steps: int,
        priority_alpha: float = 1.0,
        priority_beta: float = 1.0,
        priority_epsilon: float = 1e-6,
        min_weight: float = 0.1,
        independent: bool = True,
        max_bytes: int | None = None,
        seed: int | None = None,
        dtype: ReplayDtype = "float32",
        make_columns: MakeColumns = HostColumns,
    ) -> None:
        check_sizes(
            num_tasks=(num_tasks, 1),
            capacity_per_task=(capacity_per_task, 2),
            obs_dim=(obs_dim, 1),
            action_dim=(action_dim, 1),
            unroll_steps=(unroll_steps, 1),
            td_steps=(td_steps, 1),
        )
        check_fractions(
            priority_alpha=priority_alpha, priority_beta=priority_beta, min_weight=min_weight
        )
        if not 0.0 < priority_epsilon < np.inf:
            raise ValueError(
                f"priority_epsilon must be positive, got {priority_epsilon}; with 0, a transition "
                "whose value is exact would never be drawn again."
            )
        if max_bytes is not None:
            check_budget(
                max_bytes, num_tasks, capacity_per_task, obs_dim, action_dim, independent, dtype
            )

        self._num_tasks = num_tasks
        self._obs_dim, self._action_dim = obs_dim, action_dim
        self._unroll_steps, self._td_steps = unroll_steps, td_steps
        self._alpha, self._beta, self._epsilon = priority_alpha, priority_beta, priority_epsilon
        self._min_weight = min_weight
        self._independent = independent
        self._rng = np.random.default_rng(seed)
        self._rotation = 0

        num_rings = num_tasks if independent else 1
        self._capacity = num_tasks * capacity_per_task // num_rings
        num_slots = num_rings * self._capacity
        self._slots = SlotArrays.allocate(num_slots)
        self._columns = make_columns(float_columns(num_slots, obs_dim, action_dim, dtype))
        self._tree = SumTree(self._capacity, num_rings)
        self._rings = [
            Ring(index, self._capacity, num_tasks, self._slots, self._columns, self._tree)
            for index in range(num_rings)
        ]
        slot_bytes = sum(array.nbytes for array in self._slots.named().values())
        self._nbytes = (
            self._columns.nbytes + slot_bytes + SumTree.required_bytes(self._capacity, num_rings)
        )

    def add(self, chunk: EpisodeChunk) -> None:
        """Stores the next chunk of an episode.

        Chunks of different episodes may interleave. A chunk that begins beyond the end of the
        previous one (the one between was lost) starts a new stretch and is counted in `num_gaps`.
        New transitions get the current maximum priority of their ring, 1 in an empty ring.

        Args:
            chunk: Padded to `D` and `A`.

        Raises:
            ValueError: Wrong task or width, or the chunk does not follow the stored part.
        """
        if not 0 <= chunk.task_id < self._num_tasks:
            raise ValueError(f"{chunk}: task_id must be in [0, {self._num_tasks}).")
        widths = (chunk.observations.shape[1], chunk.actions.shape[1])
        if widths != (self._obs_dim, self._action_dim):
            raise ValueError(
                f"{chunk}: observations and actions have widths {widths}, the buffer stores "
                f"{(self._obs_dim, self._action_dim)}; pad them first."
            )
        self._rings[chunk.task_id if self._independent else 0].add(chunk)

    def sample(self, batch_size: int) -> dict[str, Any]:
        """Draws segments with replacement, stratified by priority, in task order.

        A segment starts at state t and covers the states t..t+K+n. Past the end of the episode
        (or of what is known of it), the last state is repeated and everything else is 0.

        Args:
            batch_size: `B`. Every task with data gets `B // T'` of its `T'` such tasks; the
                remainder goes round the tasks from call to call.

        Returns:
            obs: `[B, K+n+1, D]` float32.
            actions: `[B, K+1, A]` float32, executed actions.
            rewards: `[B, K+n]` float32.
            step_mask: `[B, K+n]` float32, 1 where transition i exists; so the state at index
                `step_mask.sum(1)` is the last one known.
            terminal: `[B]` float32, 1 if that last state is a true termination.
            task_ids: `[B]` int64.
            weights: `[B]` float32, importance weights `(N p)^-beta`, divided by their maximum in
                the task's share and at least `min_weight`.
            search_values: `[B, K+1]` float32, of the latest search in the state.
            policy_means: `[B, K+1, A]` float32, of its improved policy, before tanh.
            policy_stds: `[B, K+1, A]` float32.
            searched_at: `[B, K+1]` int64, updates made before that search.
            state_index: `[B, K+1, 2]` int64, slot and generation, for `update_targets`.
            age: `[B]` int64, transitions of the task added after the first one of the segment.
            index: `[B, 2]` int64, slot and generation, for `update_priorities`.

            Arrays; what comes from `make_columns` (obs, actions, rewards, search_values,
            policy_means, policy_stds) is of the kind that these give.

        Raises:
            ValueError: The buffer is empty or `batch_size` is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        ready = np.flatnonzero([ring.stored.sum() for ring in self._rings])
        if not len(ready):
            raise ValueError("The replay buffer holds no transitions yet; add some first.")
        shares = balanced_shares(batch_size, len(ready), self._rotation)
        self._rotation += batch_size % len(ready)

        rings = np.repeat(ready, shares)
        places = self._draw(rings, shares)
        weights = importance_weights(
            self._tree.get(rings, places), shares, self._beta, self._min_weight
        )
        starts = rings * self._capacity + places
        if not self._independent:
            order = np.argsort(self._slots.tasks[starts], kind="stable")
            starts, places, weights = starts[order], places[order], weights[order]

        batch = gather(
            self._slots,
            self._columns,
            starts,
            self._capacity,
            self._unroll_steps,
            self._td_steps,
        )
        batch["weights"] = weights.astype(np.float32)
        batch["age"] = self._added()[batch["task_ids"]] - self._slots.ordinals[starts]
        batch["index"] = np.stack([places, self._slots.serials[starts]], axis=1)
        return batch

    def peek(self, batch_size: int, rng: np.random.Generator) -> dict[str, Any]:
        """What `sample` might return, drawn with another generator: later samples do not change.

        Args:
            batch_size: As in `sample`.
            rng: Makes the draws.

        Raises:
            ValueError: As `sample`.
        """
        own = self._rng, self._rotation
        self._rng = rng
        try:
            return self.sample(batch_size)
        finally:
            self._rng, self._rotation = own

    def _draw(self, rings: IntArray, shares: IntArray) -> IntArray:
        """Slots within their ring: one draw from each of a ring's `share` equal strata."""
        stratum = np.arange(len(rings)) - np.repeat(np.cumsum(shares) - shares, shares)
        fraction = (stratum + self._rng.random(len(rings))) / np.repeat(shares, shares)
        return self._tree.sample(rings, fraction * self._tree.totals()[rings])

    def update_priorities(
        self,
        task_ids: IntArray,
        index: IntArray,
        priorities: npt.NDArray[np.floating[Any]],
    ) -> None:
        """Sets the priorities of samples drawn earlier to `(priority + epsilon)^alpha`.

        Samples that have been overwritten since are skipped: there is nothing left to update.

        Args:
            task_ids: `[B]`, as sampled.
            index: `[B, 2]`, as sampled.
            priorities: `[B]`, |value - target|, in the units of the value.

        Raises:
            ValueError: A priority is negative or not finite, or an index is not one that `sample`
                can have returned.
        """
        task_ids, index = np.asarray(task_ids), np.asarray(index)
        priorities = np.asarray(priorities, np.float64)
        check_priorities(priorities, len(task_ids))
        check_index(task_ids, index, self._num_tasks, self._capacity)
        places, generations = index[:, 0], index[:, 1]
        rings = task_ids if self._independent else np.zeros_like(task_ids)
        current = self._slots.serials[rings * self._capacity + places] == generations
        values = (priorities[current] + self._epsilon) ** self._alpha
        self._tree.set(rings[current], places[current], values)

    def update_targets(
        self,
        task_ids: IntArray,
        index: IntArray,
        targets: npt.NDArray[np.floating[Any]],
        searched_at: int,
    ) -> None:
        """Stores what a search found in states drawn earlier, in place of an older search's.

        States that have been overwritten since, or searched later, are skipped.

        Args:
            task_ids: `[R]`.
            index: `[R, 2]`, rows of `state_index` as sampled, of states with a transition.
            targets: `[R, 1 + 2A]`: search value, mean and deviation of the improved policy.
            searched_at: Updates made before that search.

        Raises:
            ValueError: A target is not finite, or an index is not one that `sample` can have
                returned.
        """
        task_ids, index = np.asarray(task_ids), np.asarray(index)
        targets = np.asarray(targets, np.float32)
        check_targets(targets, len(task_ids), self._action_dim)
        check_index(task_ids, index, self._num_tasks, self._capacity)
        rings = task_ids if self._independent else np.zeros_like(task_ids)
        slots, fields = rings * self._capacity + index[:, 0], self._slots
        current = fields.serials[slots] == index[:, 1]
        current &= fields.searched_at[slots] <= searched_at
        slots, targets = last_of_each(slots[current], targets[current])
        self._columns.write("search_values", slots, targets[:, 0])
        self._columns.write("policy_means", slots, targets[:, 1 : 1 + self._action_dim])
        self._columns.write("policy_stds", slots, targets[:, 1 + self._action_dim :])
        fields.searched_at[slots] = searched_at

    @property
    def nbytes(self) -> int:
        """Bytes allocated for slots and priorities."""
        return self._nbytes

    @property
    def num_gaps(self) -> int:
        """How many chunks arrived after a lost one."""
        return sum(ring.num_gaps for ring in self._rings)

    @property
    def ready_tasks(self) -> list[int]:
        """Tasks with at least one stored transition."""
        return [task for task in range(self._num_tasks) if self.num_transitions(task)]

    def num_transitions(self, task_id: int) -> int:
        """Transitions of the task stored now."""
        return sum(int(ring.stored[task_id]) for ring in self._rings)

    def num_added(self, task_id: int) -> int:
        """Transitions of the task ever added."""
        return int(self._added()[task_id])

    def __len__(self) -> int:
        """Transitions stored now, over all tasks."""
        return sum(int(ring.stored.sum()) for ring in self._rings)

    def _added(self) -> IntArray:
        total: IntArray = np.sum([ring.added for ring in self._rings], axis=0)
        return total

    def _layout(self) -> dict[str, int]:
        return {
            "num_tasks": self._num_tasks,
            "ring_capacity": self._capacity,
            "obs_dim": self._obs_dim,
            "action_dim": self._action_dim,
            "independent": int(self._independent),
        }

    def get_state(self, *, copy: bool = True) -> State:
        """Everything needed to go on exactly: the used slots, priorities, RNG.

        Args:
            copy: False returns the columns as views of the buffer's own memory, valid until the
                next `add`: for writing gigabytes to disk without a second copy of them.

        Returns:
            `layout` (ints), `rotation` (int), `rng` (JSON string) and `rings`: per ring `counters`
            (see `Ring.get_state`) and `columns` (field name -> array over the used slots).
        """
        rings: State = {}
        for ring in self._rings:
            used = self._used_slots(ring)
            columns = {
                name: array[used].copy() if copy else array[used]
                for name, array in self._slots.named().items()
            }
            columns |= self._columns.read(used, copy=copy)
            columns["priorities"] = self._tree.get(ring.index, np.arange(ring.filled))
            rings[str(ring.index)] = {"counters": ring.get_state(), "columns": columns}
        return {
            "layout": self._layout(),
            "rotation": self._rotation,
            "rng": json.dumps(self._rng.bit_generator.state),
            "rings": rings,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `get_state` returned; the same samples are drawn afterwards.

        Args:
            state: From a buffer of the same sizes.

        Raises:
            ValueError: The sizes differ.
        """
        layout = {name: int(value) for name, value in state["layout"].items()}
        if layout != self._layout():
            raise ValueError(
                f"The saved replay buffer has {layout}, this one {self._layout()}; build it with "
                "the sizes it was saved with."
            )
        for ring in self._rings:
            saved = state["rings"][str(ring.index)]
            used = self._used_slots(ring)
            self._slots.serials[used] = 0
            self._slots.kinds[used] = 0
            ring.set_state(saved["counters"])
            used = self._used_slots(ring)
            columns = current_columns(saved["columns"])
            for name, array in self._slots.named().items():
                array[used] = columns[name]
            self._columns.restore(used, columns)
            self._tree.refill(ring.index, saved["columns"]["priorities"])
        self._rotation = int(state["rotation"])
        self._rng.bit_generator.state = json.loads(state["rng"])

    def close(self) -> None:
        """Nothing to release: the memory goes with the object."""

    def _used_slots(self, ring: Ring) -> slice:
        start = ring.index * self._capacity
        return slice(start, start + ring.filled)


def last_of_each(
    slots: IntArray, rows: npt.NDArray[np.float32]
) -> tuple[IntArray, npt.NDArray[np.float32]]:
    """Each slot once, with its last row."""
    unique, from_the_end = np.unique(slots[::-1], return_index=True)
    return unique, rows[::-1][from_the_end]
