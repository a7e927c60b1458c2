"""The floats of a replay buffer as tensors on the learner's device, where batches are needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rllib_ezm.replay.columns import (
    OF_ROOTS,
    BoolArray,
    Column,
    FloatArray,
    IntArray,
    narrowed,
)
from rllib_ezm.utils.errors import UserError

GIB = 2**30


class DeviceColumns:
    """`HostColumns` as tensors: the same numbers, gathered on the device.

    Only slot numbers travel to the device with a batch. All of the memory is taken at once, where
    the device commits pages at once.

    Args:
        columns: Shapes and dtypes.
        device: Where they are.

    Raises:
        UserError: A CUDA device has less memory free.
    """

    def __init__(self, columns: Mapping[str, Column], device: torch.device | str) -> None:
        self.device = torch.device(device)
        if self.device.type == "cuda":
            check_free_memory(
                sum(column.nbytes for column in columns.values()),
                torch.cuda.mem_get_info(self.device)[0],
            )
        self._tensors = {
            name: torch.zeros(c.shape, dtype=_DTYPES[c.dtype.name], device=self.device)
            for name, c in columns.items()
        }
        self._dtypes = {name: column.dtype for name, column in columns.items()}

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def write(self, name: str, slots: IntArray, rows: FloatArray) -> None:
        """See `FloatColumns`."""
        self._tensors[name].index_copy_(
            0, self._moved(slots), self._moved(self._narrow(name, rows))
        )

    def holds(self, slot: int, observation: FloatArray) -> bool:
        """See `FloatColumns`; waits for the device."""
        stored = self._tensors["obs"][slot].cpu().numpy()
        return np.array_equal(stored, self._narrow("obs", observation))

    def gather(self, chain: IntArray, exists: BoolArray, unroll_steps: int) -> dict[str, Any]:
        """See `FloatColumns`."""
        states, present = self._moved(chain), self._moved(exists)
        roots, at_roots = states[:, : unroll_steps + 1], present[:, : unroll_steps + 1]

        def rows(name: str, where: torch.Tensor, exist: torch.Tensor | None = None) -> torch.Tensor:
            tensor = self._tensors[name]
            found = tensor.index_select(0, where.reshape(-1)).float()
            found = found.view(*where.shape, *tensor.shape[1:])
            if exist is None:
                return found
            missing = ~exist.view(*exist.shape, *(1,) * (found.ndim - exist.ndim))
            return found.masked_fill_(missing, 0.0)

        return {
            "obs": rows("obs", states),
            "rewards": rows("rewards", states[:, :-1], present),
            **{name: rows(name, roots, at_roots) for name in OF_ROOTS},
        }

    def read(self, used: slice, *, copy: bool) -> dict[str, Any]:
        """See `FloatColumns`; without a copy, each column comes to the host when it is used."""
        lazy = {name: OnDevice(tensor[used]) for name, tensor in self._tensors.items()}
        return {name: np.array(part) for name, part in lazy.items()} if copy else {**lazy}

    def restore(self, used: slice, columns: Mapping[str, Any]) -> None:
        """See `FloatColumns`."""
        for name, tensor in self._tensors.items():
            rows = np.array(
                self._narrow(name, np.asarray(columns[name]))
            )  # writable, as torch asks
            tensor[used].copy_(torch.from_numpy(rows))

    def _narrow(self, name: str, rows: FloatArray) -> np.ndarray:
        return narrowed(rows, self._dtypes[name])

    def _moved(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array)).to(self.device)


class OnDevice:
    """Rows on a device that become an array when they are used.

    Args:
        rows: The rows.
    """

    def __init__(self, rows: torch.Tensor) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array: np.ndarray = self._rows.cpu().numpy()
        return array.astype(dtype or array.dtype, copy=bool(copy))


def check_free_memory(needed: int, free: int) -> None:
    """Raise if the columns [bytes] do not fit on a device.

    Raises:
        UserError: They do not; it says what fits.
    """
    if needed > free:
        raise UserError(
            f"The replay buffer needs {needed / GIB:.1f} GiB of the GPU, which has "
            f'{free / GIB:.1f} GiB free: set .replay(replay_dtype="float16"), lower '
            f"capacity_per_task to {free / needed:.0%} of it or less (an update needs memory too), "
            'or leave replay_device at "host".'
        )


_DTYPES = {"float32": torch.float32, "float16": torch.float16}
