"""Running a function as one compiled graph (`torch.compile`)."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, ParamSpec, TypeVar, get_args

import torch
from torch import nn

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)

CompileMode = Literal["off", "default", "max-autotune"]
COMPILE_MODES: tuple[CompileMode, ...] = get_args(CompileMode)


def one_graph(function: Callable[P, R], mode: str) -> Callable[P, R]:
    """The function as one graph of static shapes, made at its first call.

    Args:
        function: Of tensors; everything else that it sees stays as it was then.
        mode: "default" or "max-autotune", see `torch.compile`; or "eager": as it is, but only if a
            graph could be made of it.
    """
    return torch.compile(
        function,
        fullgraph=True,
        dynamic=False,
        backend="eager" if mode == "eager" else "inductor",
        mode="max-autotune-no-cudagraphs" if mode == "max-autotune" else None,
    )


@contextmanager
def compiling(mode: str) -> Iterator[None]:
    """Say that it begins and what it took; it may take minutes."""
    logger.warning(
        "Compiling the update (compile=%r): minutes the first time, seconds from PyTorch's cache.",
        mode,
    )
    started = time.perf_counter()
    with warnings.catch_warnings():
        # The schedule of a search is cached; the graph has its numbers as constants.
        warnings.filterwarnings("ignore", message=".*functools.lru_cache.*")
        yield
    logger.warning("Compiled the update in %.0f s.", time.perf_counter() - started)


@contextmanager
def without_effect(buffers: list[torch.Tensor], parameters: list[nn.Parameter]) -> Iterator[None]:
    """Afterwards the buffers and the random generators are as before, and gradients are gone."""
    device = buffers[0].device
    before = [buffer.clone() for buffer in buffers]
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(buffers, before)
        for parameter in parameters:
            parameter.grad = None
