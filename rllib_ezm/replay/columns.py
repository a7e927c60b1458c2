"""The floats of the slots: nearly all of a replay buffer's memory, in arrays of this process.

Legend: M slots, D padded observation dim, A padded action dim, B samples, K unroll steps, n TD
steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

ReplayDtype = Literal["float32", "float16"]

WIDE = ("obs", "actions", "policy_means", "policy_stds")
"""Columns that a narrower dtype is for; rewards and values are one number a slot."""


OF_ROOTS = ("actions", "search_values", "policy_means", "policy_stds")
"""Columns of which a segment has the first K+1 rows."""


class Column(NamedTuple):
    """Shape and dtype of a column."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the column."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def float_columns(
    num_slots: int, obs_dim: int, action_dim: int, dtype: ReplayDtype = "float32"
) -> dict[str, Column]:
    """The columns of M slots.

    `obs` [M, D]; of the transition out of that state `actions` [M, A] and `rewards` [M]; of the
    latest search in it the root value `search_values` [M] and the improved policy before tanh,
    `policy_means` and `policy_stds` [M, A].
    """
    shapes: dict[str, tuple[int, ...]] = {
        "obs": (num_slots, obs_dim),
        "actions": (num_slots, action_dim),
        "rewards": (num_slots,),
        "search_values": (num_slots,),
        "policy_means": (num_slots, action_dim),
        "policy_stds": (num_slots, action_dim),
    }
    return {
        name: Column(shape, np.dtype(dtype if name in WIDE else "float32"))
        for name, shape in shapes.items()
    }


def narrowed(rows: FloatArray, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Rows as a column of this dtype stores them; what is beyond its range is clipped."""
    if rows.dtype == dtype:
        return rows
    limit = np.finfo(dtype).max
    narrow: npt.NDArray[Any] = np.clip(rows, -limit, limit).astype(dtype)
    return narrow


class FloatColumns(Protocol):
    """Keeps the columns of `float_columns`, wherever that is."""

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        ...

    def write(self, name: str, slots: IntArray, rows: FloatArray) -> None:
        """Rows of one column into these slots, each of which occurs once."""
        ...

    def holds(self, slot: int, observation: FloatArray) -> bool:
        """Whether a slot's observation is this one [D], as it would be stored."""
        ...

    def gather(self, chain: IntArray, exists: BoolArray, unroll_steps: int) -> dict[str, Any]:
        """Columns of segments, float32: as `gather` of `segments.py` returns them.

        Args:
            chain: `[B, K+n+1]`, slots of the states.
            exists: `[B, K+n]`, whether transition i exists.
            unroll_steps: K.
        """
        ...

    def read(self, used: slice, *, copy: bool) -> dict[str, Any]:
        """The columns of these slots, which `np.asarray` turns into arrays.

        Args:
            used: Slots.
            copy: False: perhaps views, valid until the next `write`.
        """
        ...

    def restore(self, used: slice, columns: Mapping[str, Any]) -> None:
        """Take over what `read` returned, also of columns of another kind or dtype."""
        ...


MakeColumns = Callable[[Mapping[str, Column]], FloatColumns]
"""Allocates columns, all 0."""


class HostColumns:
    """Arrays of this process; the system commits their pages when they are first written.

    Args:
        columns: Their shapes and dtypes.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._arrays = {name: np.zeros(c.shape, c.dtype) for name, c in columns.items()}

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return sum(array.nbytes for array in self._arrays.values())

    def write(self, name: str, slots: IntArray, rows: FloatArray) -> None:
        """See `FloatColumns`."""
        array = self._arrays[name]
        array[slots] = narrowed(rows, array.dtype)

    def holds(self, slot: int, observation: FloatArray) -> bool:
        """See `FloatColumns`."""
        stored = self._arrays["obs"][slot]
        return np.array_equal(stored, narrowed(observation, stored.dtype))

    def gather(self, chain: IntArray, exists: BoolArray, unroll_steps: int) -> dict[str, Any]:
        """See `FloatColumns`."""
        roots, root_exists = chain[:, : unroll_steps + 1], exists[:, : unroll_steps + 1]

        def rows(name: str, where: IntArray, present: BoolArray | None = None) -> FloatArray:
            found = self._arrays[name].take(where, axis=0).astype(np.float32, copy=False)
            if present is not None:
                found[~present] = 0.0
            return found

        return {
            "obs": rows("obs", chain),
            "rewards": rows("rewards", chain[:, :-1], exists),
            **{name: rows(name, roots, root_exists) for name in OF_ROOTS},
        }

    def read(self, used: slice, *, copy: bool) -> dict[str, Any]:
        """See `FloatColumns`."""
        return {
            name: array[used].copy() if copy else array[used]
            for name, array in self._arrays.items()
        }

    def restore(self, used: slice, columns: Mapping[str, Any]) -> None:
        """See `FloatColumns`."""
        for name, array in self._arrays.items():
            array[used] = narrowed(np.asarray(columns[name]), array.dtype)


_MAX_ACTION = 0.999
"""Of a search: so that `atanh` stays finite."""


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
