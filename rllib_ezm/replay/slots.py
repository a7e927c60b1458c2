"""The slots of the replay buffer, one per observation: what each holds, and what follows it.

The observations, actions and values themselves are in `columns.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

# What a slot holds. 0 is an unused slot, so that np.zeros allocates an empty ring.
TRANSITION = 1  # a state and the transition out of it: the only kind sampled as a start
PENDING = 2  # latest state of an ongoing episode; the next chunk makes it a TRANSITION
TERMINAL = 3  # final state of a terminated episode
TRUNCATED = 4  # final state of a truncated episode

NO_SUCCESSOR = -1


@dataclass(frozen=True)
class SlotArrays:
    """Fields of `M` slots (every ring's slots, ring after ring).

    Serial numbers count the slots ever written to a ring, from 1; the slot of serial `s` is
    `(s - 1) % capacity`. A serial is therefore the generation of its slot.

    Attributes:
        serials: `[M]`, serial number of the slot's content, 0 if unused.
        successors: `[M]`, serial number of the next state's slot, or NO_SUCCESSOR.
        kinds: `[M]`, one of the constants above, 0 if unused.
        tasks: `[M]`, task of the state.
        searched_at: `[M]`, updates made before the search whose targets are stored.
        ordinals: `[M]`, how many transitions of the task had been added up to this one.
    """

    serials: IntArray
    successors: IntArray
    kinds: npt.NDArray[np.uint8]
    tasks: npt.NDArray[np.int32]
    searched_at: IntArray
    ordinals: IntArray

    @classmethod
    def allocate(cls, num_slots: int) -> SlotArrays:
        """Zeroed arrays; the system commits their pages when they are first written."""
        return cls(
            serials=np.zeros(num_slots, np.int64),
            successors=np.zeros(num_slots, np.int64),
            kinds=np.zeros(num_slots, np.uint8),
            tasks=np.zeros(num_slots, np.int32),
            searched_at=np.zeros(num_slots, np.int64),
            ordinals=np.zeros(num_slots, np.int64),
        )

    @classmethod
    def bytes_per_slot(cls) -> int:
        """Bytes that `allocate` needs for one slot."""
        return sum(array.nbytes for array in cls.allocate(1).named().values())

    def named(self) -> dict[str, npt.NDArray[np.generic]]:
        """The arrays by field name, without copying."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
