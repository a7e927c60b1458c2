"""A replay buffer that outgrows one process: the rings of each group of tasks in a Ray actor."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import RayActorError

from rllib_ezm.replay import EpisodeChunk, MultiTaskReplayBuffer
from rllib_ezm.replay.checks import check_budget, required_bytes
from rllib_ezm.replay.shares import balanced_shares
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.seeding import derived_seed

State = dict[str, Any]
IntArray = npt.NDArray[np.int64]


class Counts(NamedTuple):
    """Transitions of each task stored now and ever added [T], and lost chunks."""

    stored: IntArray
    added: IntArray
    gaps: int


class ReplayActor(MultiTaskReplayBuffer):
    """A buffer for all tasks that is given only those of its group: the others take no memory."""

    def counts(self) -> Counts:
        """Of its group; 0 elsewhere."""
        tasks = range(self._num_tasks)
        return Counts(
            np.array([self.num_transitions(task) for task in tasks]),
            np.array([self.num_added(task) for task in tasks]),
            self.num_gaps,
        )

    def take_over(self, state: Mapping[str, Any]) -> None:
        """`set_state` with the rings of its group alone; those of others are and stay empty."""
        rings = {**self.get_state(copy=False)["rings"], **state["rings"]}
        self.set_state({**state, "rings": rings})


class ReplayActors:
    """`MultiTaskReplayBuffer`, with its rings spread over actors; samples alike, but other draws.

    What is added, and new priorities, travel without anyone waiting for them; a sample sees all of
    them. Each actor draws its share of a batch at the same time as the others. Its state is that of
    the local buffer: either takes over a state of the other.

    Args:
        num_actors: From 1 to the number of tasks. Neighboring tasks share an actor.
        num_cpus: Ray's CPUs of each.
        num_tasks: T.
        seed: Of the draws; None draws one.
        max_bytes: Budget of all actors together; None for no limit.
        **settings: The other arguments of `MultiTaskReplayBuffer`.

    Raises:
        ValueError: As `MultiTaskReplayBuffer`.
    """

    def __init__(
        self,
        num_actors: int,
        *,
        num_cpus: float,
        num_tasks: int,
        seed: int | None,
        max_bytes: int | None,
        **settings: Any,
    ) -> None:
        sizes = (
            num_tasks,
            settings["capacity_per_task"],
            settings["obs_dim"],
            settings["action_dim"],
            True,
            settings.get("dtype", "float32"),
        )
        if max_bytes is not None:
            check_budget(max_bytes, *sizes)
        self.nbytes = required_bytes(*sizes)
        groups = np.array_split(np.arange(num_tasks), num_actors)
        self._owner = np.repeat(np.arange(num_actors), [len(group) for group in groups])
        self._num_tasks = num_tasks
        self._has_data = np.zeros(num_tasks, dtype=bool)
        self._rotation = 0
        remote = ray.remote(num_cpus=num_cpus)(ReplayActor)
        self._actors = [
            remote.remote(
                num_tasks=num_tasks,
                seed=None if seed is None else derived_seed(seed, index),
                **settings,
            )
            for index in range(num_actors)
        ]
        self._under_way: list[ray.ObjectRef] = []
        self._get([actor.counts.remote() for actor in self._actors])

    def add(self, chunk: EpisodeChunk) -> None:
        """As `MultiTaskReplayBuffer.add`; an error is raised by the next call that waits."""
        if not 0 <= chunk.task_id < self._num_tasks:
            raise ValueError(f"{chunk}: task_id must be in [0, {self._num_tasks}).")
        self._under_way.append(self._actors[self._owner[chunk.task_id]].add.remote(chunk))
        self._has_data[chunk.task_id] |= len(chunk.actions) > 0

    def sample(self, batch_size: int) -> dict[str, npt.NDArray[Any]]:
        """As `MultiTaskReplayBuffer.sample`."""
        return self._sample(batch_size, None)

    def peek(self, batch_size: int, rng: np.random.Generator) -> dict[str, npt.NDArray[Any]]:
        """As `MultiTaskReplayBuffer.peek`."""
        rotation = self._rotation
        try:
            return self._sample(batch_size, rng)
        finally:
            self._rotation = rotation

    def _sample(
        self, batch_size: int, rng: np.random.Generator | None
    ) -> dict[str, npt.NDArray[Any]]:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        ready = np.flatnonzero(self._has_data)
        if not len(ready):
            raise ValueError("The replay buffer holds no transitions yet; add some first.")
        shares = balanced_shares(batch_size, len(ready), self._rotation)
        self._rotation += batch_size % len(ready)
        of_actors = np.bincount(self._owner[ready], shares, len(self._actors)).astype(int)
        parts = self._get(
            [
                actor.sample.remote(share) if rng is None else actor.peek.remote(share, rng)
                for actor, share in zip(self._actors, of_actors.tolist(), strict=True)
                if share
            ]
        )
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def update_priorities(
        self, task_ids: IntArray, index: IntArray, priorities: npt.NDArray[np.floating[Any]]
    ) -> None:
        """As `MultiTaskReplayBuffer.update_priorities`; see `add` for errors."""
        owner = self._owner[task_ids]
        for number, actor in enumerate(self._actors):
            own = owner == number
            if own.any():
                self._under_way.append(
                    actor.update_priorities.remote(task_ids[own], index[own], priorities[own])
                )

    def update_targets(
        self,
        task_ids: IntArray,
        index: IntArray,
        targets: npt.NDArray[np.floating[Any]],
        searched_at: int,
    ) -> None:
        """As `MultiTaskReplayBuffer.update_targets`; see `add` for errors."""
        owner = self._owner[task_ids]
        for number, actor in enumerate(self._actors):
            own = owner == number
            if own.any():
                self._under_way.append(
                    actor.update_targets.remote(
                        task_ids[own], index[own], targets[own], searched_at
                    )
                )

    def counts(self) -> Counts:
        """Of all tasks, with everything added so far."""
        parts: list[Counts] = self._get([actor.counts.remote() for actor in self._actors])
        return Counts(
            np.sum([part.stored for part in parts], axis=0),
            np.sum([part.added for part in parts], axis=0),
            sum(part.gaps for part in parts),
        )

    @property
    def num_gaps(self) -> int:
        """How many chunks arrived after a lost one."""
        return self.counts().gaps

    @property
    def ready_tasks(self) -> list[int]:
        """Tasks with at least one stored transition."""
        return [int(task) for task in np.flatnonzero(self._has_data)]

    def num_transitions(self, task_id: int) -> int:
        """Transitions of the task stored now."""
        return int(self.counts().stored[task_id])

    def num_added(self, task_id: int) -> int:
        """Transitions of the task ever added."""
        return int(self.counts().added[task_id])

    def __len__(self) -> int:
        """Transitions stored now, over all tasks."""
        return int(self.counts().stored.sum())

    def get_state(self, *, copy: bool = True) -> State:
        """As `MultiTaskReplayBuffer.get_state`, and `actors`: rotation and generator of each.

        The columns pass through the object store, which spills to disk what it cannot hold.
        """
        states: list[State] = self._get([actor.get_state.remote() for actor in self._actors])
        return {
            **states[0],
            "rotation": self._rotation,
            "rings": {
                str(task): states[owner]["rings"][str(task)]
                for task, owner in enumerate(self._owner.tolist())
            },
            "actors": {
                str(number): {"rotation": state["rotation"], "rng": state["rng"]}
                for number, state in enumerate(states)
            },
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores a state of these actors, of a local buffer, or of another number of actors.

        The first draws the same samples afterwards.

        Raises:
            ValueError: The sizes differ.
        """
        own = state.get("actors", {})
        if len(own) != len(self._actors):
            own = {str(i): _other_draws(state["rng"], i) for i in range(len(self._actors))}
        self._get(
            [
                actor.take_over.remote(
                    {
                        "layout": state["layout"],
                        **own[str(number)],
                        "rings": {
                            str(task): _in_memory(state["rings"][str(task)])
                            for task in np.flatnonzero(self._owner == number)
                        },
                    }
                )
                for number, actor in enumerate(self._actors)
            ]
        )
        self._rotation = int(state["rotation"])
        self._has_data = self.counts().stored > 0

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)

    def _get(self, references: Sequence[ray.ObjectRef]) -> list[Any]:
        """The results of calls, after those of all calls before."""
        under_way, self._under_way = self._under_way, []
        try:
            ray.get(under_way)
            results: list[Any] = ray.get(list(references))
        except RayActorError as error:
            raise UserError(
                "A replay actor died, and the transitions it held are lost: resume from the last "
                f"checkpoint (`--resume`, or Tune's FailureConfig). {error}"
            ) from error
        return results


def _other_draws(rng: str, number: int) -> State:
    """Rotation and generator of an actor whose number had none when the state was saved."""
    seed = derived_seed(zlib.crc32(rng.encode()), number)
    return {"rotation": 0, "rng": json.dumps(np.random.default_rng(seed).bit_generator.state)}


def _in_memory(ring: Mapping[str, Any]) -> State:
    """A ring's state with arrays that may be sent: not maps of files of this machine."""
    return {
        "counters": {name: np.asarray(value) for name, value in ring["counters"].items()},
        "columns": {name: np.asarray(column) for name, column in ring["columns"].items()},
    }
