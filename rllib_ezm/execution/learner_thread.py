"""A thread for the learners: the next update starts as soon as the previous one ends."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import ray

Batch = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Weights:
    """Weights in the object store, put there once for all who want them.

    Attributes:
        version: Updates made when they were taken.
        acting: Module state for the env runners.
        target: Target network for the reanalyze workers; None without any.
        nbytes: Size of `acting`.
    """

    version: int
    acting: ray.ObjectRef
    target: ray.ObjectRef | None
    nbytes: int


@dataclass
class Update:
    """A batch on its way through the learners.

    Attributes:
        batch: What the replay buffer gave, and perhaps targets.
        env_steps: Taken in when it was sampled.
        sampled_at: Updates made when it was sampled.
        target_version: Version of the weights behind its targets; None: the learner makes them.
        number: Updates made when this one is done.
        results: RLlib's, one per learner.
        weights: Those after it, where a transfer was due.
        seconds: What it took.
    """

    batch: Batch
    env_steps: int
    sampled_at: int
    target_version: int | None = None
    number: int = 0
    results: list[Any] = field(default_factory=list)
    weights: Weights | None = None
    seconds: float = 0.0


class LearnerThread(threading.Thread):
    """Makes updates one after the other.

    Args:
        make: Makes one: sets its `number`, `results`, and `weights` where they are due.
        capacity: Batches that may wait here.
    """

    def __init__(self, make: Callable[[Update], None], capacity: int) -> None:
        super().__init__(name="ezm-learner", daemon=True)
        self._make, self._capacity = make, capacity
        self._waiting: queue.SimpleQueue[Update | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Update | Exception] = queue.SimpleQueue()
        self._submitted = self._finished = 0
        self.idle_seconds = 0.0
        self.busy_seconds = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether all that was given is made."""
        return self._finished == self._submitted

    def has_room(self) -> bool:
        """Whether `submit` takes a batch now."""
        return self._waiting.qsize() < self._capacity

    def submit(self, update: Update) -> None:
        """Let it be made after those given before."""
        self._submitted += 1
        self._waiting.put(update)

    def completed(self) -> list[Update]:
        """Updates made since the last call, in order.

        Raises:
            Exception: What ended the thread.
        """
        made = []
        while not self._done.empty():
            item = self._done.get()
            if isinstance(item, Exception):
                raise item
            made.append(item)
        return made

    def run(self) -> None:
        """The thread itself; `start()` begins it, `close()` ends it."""
        while True:
            start = time.perf_counter()
            update = self._waiting.get()
            self.idle_seconds += time.perf_counter() - start
            if update is None:
                return
            start = time.perf_counter()
            try:
                self._make(update)
            except Exception as error:  # noqa: BLE001 - `completed` raises it
                self._done.put(error)
                return
            update.seconds = time.perf_counter() - start
            self.busy_seconds += update.seconds
            self._done.put(update)
            self._finished += 1

    def close(self) -> None:
        """After the updates that wait, if it still runs."""
        self._waiting.put(None)
        self.join()
