"""Weights at half their size for the way to other processes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch


class Bfloat16(NamedTuple):
    """The upper halves of float32 numbers, rounded to nearest even: bits [...] uint16."""

    bits: npt.NDArray[np.uint16]


def to_transfer_dtype(state: Any) -> Any:
    """A nested dict with its float32 matrices in bfloat16.

    Vectors stay as they are: biases are small, and the statistics of BatchNorm and of the
    observation normalizer need their precision.
    """
    if isinstance(state, dict):
        return {name: to_transfer_dtype(value) for name, value in state.items()}
    if isinstance(state, np.ndarray) and state.dtype == np.float32 and state.ndim >= 2:
        rounded = torch.tensor(state).bfloat16().view(torch.int16)
        return Bfloat16(rounded.numpy().view(np.uint16))
    return state


def from_transfer_dtype(state: Any) -> Any:
    """What `to_transfer_dtype` was given, matrices rounded to bfloat16."""
    if isinstance(state, Bfloat16):
        return (state.bits.astype(np.uint32) << 16).view(np.float32)
    if isinstance(state, dict):
        return {name: from_transfer_dtype(value) for name, value in state.items()}
    return state
