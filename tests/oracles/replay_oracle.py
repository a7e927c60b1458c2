"""A slow replay buffer of plain Python lists that defines what may be sampled, and as what."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rllib_ezm.replay import EpisodeChunk

StateKey = tuple[int, str, int]  # task, stretch of an episode, step


@dataclass
class Stretch:
    """States and transitions of an episode without a hole; `rows[i]` leaves state `first + i`."""

    first: int
    states: list[np.ndarray]
    rows: list[tuple] = field(default_factory=list)
    terminated: bool = False
    ended: bool = False


class ReplayOracle:
    """Keeps every episode in full, and a log of which states each ring has written."""

    def __init__(self, num_tasks: int, capacity_per_task: int, independent: bool) -> None:
        self.independent = independent
        self.capacity = capacity_per_task if independent else num_tasks * capacity_per_task
        self.logs: list[list[StateKey]] = [[] for _ in range(num_tasks if independent else 1)]
        self.stretches: dict[tuple[int, str], Stretch] = {}
        self.latest: dict[tuple[int, str], str] = {}
        self.added: list[list[StateKey]] = [[] for _ in range(num_tasks)]

    def add(self, chunk: EpisodeChunk) -> None:
        log = self.logs[chunk.task_id if self.independent else 0]
        name = self._stretch_for(chunk, log)
        stretch = self.stretches[chunk.task_id, name]
        for i in range(len(chunk)):
            self.added[chunk.task_id].append((chunk.task_id, name, chunk.start + i))
            row = (chunk.actions[i], chunk.rewards[i], chunk.search_values[i])
            policy = (chunk.policy_means[i], chunk.policy_stds[i])
            stretch.rows.append((*row, *policy, chunk.searched_at))
            stretch.states.append(chunk.observations[i + 1])
            log.append((chunk.task_id, name, chunk.start + i + 1))
        stretch.terminated = chunk.terminated
        stretch.ended = chunk.terminated or chunk.truncated

    def _stretch_for(self, chunk: EpisodeChunk, log: list[StateKey]) -> str:
        """The stored stretch that the chunk continues if its last state is live, or a new one."""
        key = (chunk.task_id, chunk.episode_id)
        if key in self.latest:
            name = self.latest[key]
            stretch = self.stretches[chunk.task_id, name]
            step = stretch.first + len(stretch.rows)
            pending = (chunk.task_id, name, step)
            live = pending in log[-self.capacity :]
            if step == chunk.start and live and not stretch.ended:
                return name
        name = f"{chunk.episode_id}/{chunk.start}"
        self.latest[key] = name
        self.stretches[chunk.task_id, name] = Stretch(chunk.start, [chunk.observations[0]])
        log.append((chunk.task_id, name, chunk.start))
        return name

    def starts(self, task: int) -> set[StateKey]:
        """Every state of the task that is stored and whose transition is known."""
        log = self.logs[task if self.independent else 0][-self.capacity :]
        return {
            (owner, name, step)
            for owner, name, step in log
            if owner == task
            and step - self.stretches[owner, name].first < len(self.stretches[owner, name].rows)
        }

    def age(self, start: StateKey) -> int:
        """Transitions of the task added after this one."""
        added = self.added[start[0]]
        return len(added) - 1 - added.index(start)

    def segment(self, start: StateKey, unroll: int, td: int) -> dict[str, np.ndarray]:
        """The columns of the segment at `start`, one batch row, from the episode's own lists."""
        task, name, step = start
        stretch = self.stretches[task, name]
        states = stretch.states[step - stretch.first :]
        rows = stretch.rows[step - stretch.first :]
        length = unroll + td
        blank = (np.zeros_like(rows[0][0]), 0.0, 0.0, *map(np.zeros_like, rows[0][3:5]), 0)
        padded_states = (states + [states[-1]] * length)[: length + 1]
        padded_rows = (rows + [blank] * length)[:length]
        mask = ([1.0] * len(rows) + [0.0] * length)[:length]
        roots = padded_rows[: unroll + 1]
        return {
            "obs": np.stack(padded_states),
            "actions": np.stack([row[0] for row in roots]),
            "rewards": np.array([row[1] for row in padded_rows], np.float32),
            "step_mask": np.array(mask, np.float32),
            "terminal": np.float32(stretch.terminated and len(rows) <= length),
            "task_ids": np.int64(task),
            "search_values": np.array([row[2] for row in roots], np.float32),
            "policy_means": np.stack([row[3] for row in roots]),
            "policy_stds": np.stack([row[4] for row in roots]),
            "searched_at": np.array([row[5] for row in roots]),
            "age": np.int64(self.age(start)),
        }
