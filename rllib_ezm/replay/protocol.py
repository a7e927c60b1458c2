"""What a replay buffer is, in this process or in actors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rllib_ezm.replay.chunk import EpisodeChunk
from rllib_ezm.replay.slots import IntArray


class ReplayBuffer(Protocol):
    """Stores chunks of episodes of T tasks and samples segments of them, an equal share per task.

    `MultiTaskReplayBuffer` says what each method does; an implementation may differ in where the
    memory is and in the draws, not in what a batch holds.
    """

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        ...

    @property
    def num_gaps(self) -> int:
        """How many chunks arrived after a lost one."""
        ...

    @property
    def ready_tasks(self) -> list[int]:
        """Tasks with at least one stored transition."""
        ...

    def add(self, chunk: EpisodeChunk) -> None:
        """Store the next chunk of an episode."""
        ...

    def sample(self, batch_size: int) -> dict[str, Any]:
        """Draw segments, prioritized, in task order."""
        ...

    def peek(self, batch_size: int, rng: np.random.Generator) -> dict[str, Any]:
        """What `sample` might return; later samples do not change."""
        ...

    def update_priorities(
        self, task_ids: IntArray, index: IntArray, priorities: npt.NDArray[np.floating[Any]]
    ) -> None:
        """Set the priorities of samples drawn earlier."""
        ...

    def update_targets(
        self,
        task_ids: IntArray,
        index: IntArray,
        targets: npt.NDArray[np.floating[Any]],
        searched_at: int,
    ) -> None:
        """Store what a search found in states drawn earlier."""
        ...

    def num_transitions(self, task_id: int) -> int:
        """Transitions of the task stored now."""
        ...

    def num_added(self, task_id: int) -> int:
        """Transitions of the task ever added."""
        ...

    def __len__(self) -> int:
        """Transitions stored now, over all tasks."""
        ...

    def get_state(self, *, copy: bool = True) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        ...

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_state` of a buffer of the same sizes returned."""
        ...

    def close(self) -> None:
        """Release the processes and memory behind it; the buffer is of no use afterwards."""
        ...
