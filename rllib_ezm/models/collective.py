"""Statistics over the learners that share a batch: what one of them sees is a part of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import distributed, nn


class Collective:
    """Reductions over `size` processes; this one, of a process alone, returns what it is given."""

    size = 1
    rank = 0

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """The sum over the processes; gradients flow back to all of them."""
        return x

    def minimum(self, x: torch.Tensor) -> torch.Tensor:
        """The least over the processes, without gradients."""
        return x

    def maximum(self, x: torch.Tensor) -> torch.Tensor:
        """The greatest over the processes, without gradients."""
        return x

    def average_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors of one dtype by their means over the processes."""

    def copy_from_first_(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors by those of rank 0."""


class TorchCollective(Collective):
    """Reductions over the default process group of `torch.distributed` (NCCL, gloo)."""

    def __init__(self) -> None:
        self.size = distributed.get_world_size()
        self.rank = distributed.get_rank()

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """The sum over the processes; gradients flow back to all of them."""
        total: torch.Tensor = _Sum.apply(x)
        return total

    def minimum(self, x: torch.Tensor) -> torch.Tensor:
        """The least over the processes, without gradients."""
        return _reduced(x, distributed.ReduceOp.MIN)

    def maximum(self, x: torch.Tensor) -> torch.Tensor:
        """The greatest over the processes, without gradients."""
        return _reduced(x, distributed.ReduceOp.MAX)

    def average_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors of one dtype by their means over the processes: one transfer for all."""
        flat = torch.cat([x.flatten() for x in tensors])
        distributed.all_reduce(flat)
        parts = flat.div_(self.size).split([x.numel() for x in tensors])
        for x, part in zip(tensors, parts, strict=True):
            x.copy_(part.view_as(x))

    def copy_from_first_(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors by those of rank 0."""
        for x in tensors:
            distributed.broadcast(x, src=0)


class TakesBatchStatistics:
    """A module that keeps statistics of its batches: of its process's rows, or of all learners'."""

    collective = Collective()


def share_statistics(module: nn.Module, collective: Collective) -> None:
    """Let every part of `module` that keeps statistics of batches take them over `collective`."""
    for part in module.modules():
        if isinstance(part, TakesBatchStatistics):
            part.collective = collective


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return _reduced(x, distributed.ReduceOp.SUM)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        # Each process's loss depends on the sum, and x enters it once.
        return _reduced(gradients[0], distributed.ReduceOp.SUM)


def _reduced(x: torch.Tensor, operation: Any) -> torch.Tensor:
    x = x.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(x, operation)
    return x
