"""What the speed benchmarks share: one pinned core, CPU time, interleaved rounds, a GEMM peak."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rllib_ezm.utils.allocator import keep_freed_memory

GEMM_SIZE = 2048


def pin(core: int | None = None) -> int:
    """Keep this process on one core (the last one by default), one thread, and its memory."""
    keep_freed_memory()
    core = max(os.sched_getaffinity(0)) if core is None else core
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    return core


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU seconds of this process for one call; time lost to other processes does not count."""
    start = time.process_time()
    call()
    return time.process_time() - start


def interleaved(
    calls: dict[str, Callable[[], object]], rounds: int, *, warmup: int = 1
) -> dict[str, np.ndarray]:
    """CPU seconds of each call in each round [rounds].

    The calls take turns, round by round, so that a busy machine hits all of them alike.
    """
    for _ in range(warmup):
        for call in calls.values():
            call()
    times = {name: np.empty(rounds) for name in calls}
    for i in range(rounds):
        for name, call in calls.items():
            times[name][i] = cpu_seconds(call)
    return times


def quartiles(values: np.ndarray) -> dict[str, float]:
    """Lower quartile, median and upper quartile."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"q25": float(low), "median": float(median), "q75": float(high)}


def gemm(dtype: torch.dtype, size: int = GEMM_SIZE) -> Callable[[], object]:
    """A call that multiplies two [size, size] matrices: one more entry for `interleaved`."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = torch.empty(size, size, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)


def gemm_rate(seconds: np.ndarray, size: int = GEMM_SIZE) -> float:
    """FLOP/s of the fastest round of `gemm`: the peak that the same run could reach."""
    return float(2.0 * size**3 / seconds.min())


class DispatchCounter(TorchDispatchMode):
    """Counts the operators dispatched while it is active, those of a backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count one operator and run it."""
        self.count += 1
        return func(*args, **(kwargs or {}))


def count_dispatches(call: Callable[[], object]) -> int:
    """Number of operators that one call dispatches."""
    with DispatchCounter() as counter:
        call()
    return counter.count
