"""A stand-in for CUDA graphs on any device: records operations and runs the same ones again.

As there, what Python decided while recording stays decided, tensors are known by their memory, and
what an operation returned is overwritten when it runs again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rllib_ezm.update.captured import Recording

READS = ("_local_scalar_dense", "nonzero", "equal")
"""Operations whose result decides something on the host."""


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.removeprefix("aten::") in READS:
            raise RuntimeError(f"{func} reads from the device while it is recorded")
        outputs = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, outputs))
        return outputs


class ReplayingRecorder:
    """Has the two calls of `CudaRecorder`."""

    def __init__(self) -> None:
        self.replays = 0

    def warm_up(self, function: Callable[[], Any]) -> Any:
        return function()

    def record(self, function: Callable[[], Any]) -> Recording:
        with _Tape() as tape:
            outputs = function()
        return Recording(outputs, lambda: self._replay(tape.calls))

    def _replay(self, calls: list[tuple[Any, Any, Any, Any]]) -> None:
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, recorded in calls:
                outputs = func(*args, **kwargs)
                for new, old in zip(tree_leaves(outputs), tree_leaves(recorded), strict=True):
                    if isinstance(old, torch.Tensor) and new.data_ptr() != old.data_ptr():
                        old.copy_(new)
