"""The memory of the replay buffer: one slot per observation, as flat arrays over all rings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# What a slot holds. 0 is an unused slot, so that np.zeros allocates an empty ring.
TRANSITION = 1  # a state and the transition out of it: the only kind sampled as a start
PENDING = 2  # latest state of an ongoing episode; the next chunk makes it a TRANSITION
TERMINAL = 3  # final state of a terminated episode
TRUNCATED = 4  # final state of a truncated episode

NO_SUCCESSOR = -1

_MAX_ACTION = 0.999
"""Of a search: so that `atanh` stays finite."""


@dataclass(frozen=True)
class SlotArrays:
    """Fields of `M` slots (every ring's slots, ring after ring).

    Serial numbers count the slots ever written to a ring, from 1; the slot of serial `s` is
    `(s - 1) % capacity`. A serial is therefore the generation of its slot.

    Attributes:
        obs: `[M, D]`.
        actions: `[M, A]`, action taken in the state.
        rewards: `[M]`, reward of that action.
        search_values: `[M]`, root value of the latest search in the state.
        policy_means: `[M, A]`, of the improved policy of that search, before tanh.
        policy_stds: `[M, A]`, its standard deviation.
        searched_at: `[M]`, updates made before that search.
        serials: `[M]`, serial number of the slot's content, 0 if unused.
        successors: `[M]`, serial number of the next state's slot, or NO_SUCCESSOR.
        kinds: `[M]`, one of the constants above, 0 if unused.
        tasks: `[M]`, task of the state.
        ordinals: `[M]`, how many transitions of the task had been added up to this one.
    """

    obs: FloatArray
    actions: FloatArray
    rewards: FloatArray
    search_values: FloatArray
    policy_means: FloatArray
    policy_stds: FloatArray
    searched_at: IntArray
    serials: IntArray
    successors: IntArray
    kinds: npt.NDArray[np.uint8]
    tasks: npt.NDArray[np.int32]
    ordinals: IntArray

    @classmethod
    def allocate(cls, num_slots: int, obs_dim: int, action_dim: int) -> SlotArrays:
        """Zeroed arrays; the system commits their pages when they are first written."""
        return cls(
            obs=np.zeros((num_slots, obs_dim), np.float32),
            actions=np.zeros((num_slots, action_dim), np.float32),
            rewards=np.zeros(num_slots, np.float32),
            search_values=np.zeros(num_slots, np.float32),
            policy_means=np.zeros((num_slots, action_dim), np.float32),
            policy_stds=np.zeros((num_slots, action_dim), np.float32),
            searched_at=np.zeros(num_slots, np.int64),
            serials=np.zeros(num_slots, np.int64),
            successors=np.zeros(num_slots, np.int64),
            kinds=np.zeros(num_slots, np.uint8),
            tasks=np.zeros(num_slots, np.int32),
            ordinals=np.zeros(num_slots, np.int64),
        )

    @classmethod
    def bytes_per_slot(cls, obs_dim: int, action_dim: int) -> int:
        """Bytes that `allocate` needs for one slot."""
        return sum(array.nbytes for array in cls.allocate(1, obs_dim, action_dim).named().values())

    def named(self) -> dict[str, npt.NDArray[np.generic]]:
        """The arrays by field name, without copying."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def current_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a stored ring by their present names.

    Earlier ones hold the best action in place of the improved policy's moments.
    """
    if "search_actions" not in columns:
        return dict(columns)
    actions = np.clip(np.asarray(columns["search_actions"]), -_MAX_ACTION, _MAX_ACTION)
    return {
        **columns,
        "policy_means": np.arctanh(actions),
        "policy_stds": np.zeros_like(actions),
        "searched_at": np.zeros(len(actions), np.int64),
    }
