"""Numeric precision by name: the dtype of inference, the autocast context of training."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch

Precision = Literal["float32", "bfloat16", "float16", "auto"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@functools.cache
def has_native_bfloat16(device_type: str) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 on this machine."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device_type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in checks)


def resolve_dtype(device_type: str, precision: str) -> torch.dtype:
    """The dtype of a precision name; "auto" is bfloat16 where the device multiplies it natively.

    Raises:
        ValueError: If the name is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown; use one of {PRECISIONS}")
    if precision == "auto":
        precision = "bfloat16" if has_native_bfloat16(device_type) else "float32"
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def autocast(device_type: str, precision: str) -> AbstractContextManager[object]:
    """Autocast context for a precision name; no context for float32."""
    dtype = resolve_dtype(device_type, precision)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device_type, dtype=dtype)
