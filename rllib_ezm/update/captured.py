"""An update as a recorded sequence of kernels, run again without Python between them (CUDA graphs).

What is recorded has fixed addresses: batches are copied into buffers of its own, the learning rate
is a tensor, and what it returns is overwritten by the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch.autograd.graph import increment_version

R = TypeVar("R")
Batch = Mapping[str, torch.Tensor]


class Recording(NamedTuple):
    """What a recorded function returned, and a call that runs it again into the same tensors."""

    outputs: Any
    replay: Callable[[], object]


class Recorder(Protocol):
    """Records what a function does on a device."""

    def warm_up(self, function: Callable[[], R]) -> R:
        """Run a function as often as needed before it can be recorded: once, with its result."""
        ...

    def record(self, function: Callable[[], Any]) -> Recording:
        """Run a function once more and record it."""
        ...


class CudaRecorder:
    """`torch.cuda.graph`; the default generator of the device is registered by it."""

    def warm_up(self, function: Callable[[], R]) -> R:
        """On a stream of its own, so that what libraries allocate is not part of the recording."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = function()
        torch.cuda.current_stream().wait_stream(stream)
        return result

    def record(self, function: Callable[[], Any]) -> Recording:
        """Recording runs nothing, so it is replayed at once."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = function()
        graph.replay()
        return Recording(outputs, graph.replay)


class _Recorded(NamedTuple):
    columns: dict[str, torch.Tensor]
    recording: Recording


class CapturedUpdate:
    """Runs an update as it is for the first batch of each kind, then records it, then replays it.

    A kind is the shapes and dtypes of the columns, the flags, and the constants of the optimizer.

    Args:
        update: `update(batch, *flags)`, which reads nothing back to the host.
        optimizer: What it steps; its learning rate may be set anew before each update.
        tensors: What it writes; views of them are told that they have changed.
        recorder: Records it.
    """

    def __init__(
        self,
        update: Callable[..., Any],
        optimizer: torch.optim.Optimizer,
        tensors: Sequence[torch.Tensor],
        recorder: Recorder,
    ) -> None:
        self._update, self._optimizer, self._recorder = update, optimizer, recorder
        self._tensors = list(tensors)
        self._warm: set[object] = set()
        self._recorded: dict[object, _Recorded] = {}
        self._learning_rates: list[torch.Tensor] = []
        for group in optimizer.param_groups:
            group["capturable"] = True

    @property
    def num_recordings(self) -> int:
        """Kinds of updates that are recorded."""
        return len(self._recorded)

    def __call__(self, batch: Batch, *flags: bool) -> Any:
        """One update; what it returns holds until the next one."""
        kind = self._kind(batch, flags)
        known = self._recorded.get(kind)
        if known is not None:
            for name, column in known.columns.items():
                column.copy_(batch[name], non_blocking=True)
            with self._learning_rates_on_device():
                known.recording.replay()
            increment_version(self._tensors)
            return known.recording.outputs
        # Whatever is folded or cached of these tensors must be made anew within the recording.
        increment_version(self._tensors)
        with self._learning_rates_on_device():
            if kind not in self._warm:
                self._warm.add(kind)
                return self._recorder.warm_up(lambda: self._update(batch, *flags))
            columns = {name: column.clone() for name, column in batch.items()}
            recording = self._recorder.record(lambda: self._update(columns, *flags))
        self._recorded[kind] = _Recorded(columns, recording)
        return recording.outputs

    def _kind(self, batch: Batch, flags: Sequence[bool]) -> object:
        columns = tuple((name, x.shape, x.dtype) for name, x in sorted(batch.items()))
        constants = tuple(
            (name, value)
            for group in self._optimizer.param_groups
            for name, value in sorted(group.items())
            if name not in ("params", "lr")
        )
        return columns, tuple(flags), constants

    @contextmanager
    def _learning_rates_on_device(self) -> Iterator[None]:
        """The optimizer reads its learning rates from tensors, which are set to their values."""
        groups = self._optimizer.param_groups
        values = [float(group["lr"]) for group in groups]
        device = groups[0]["params"][0].device
        if not self._learning_rates:
            self._learning_rates = [torch.zeros((), device=device) for _ in groups]
        for group, rate, value in zip(groups, self._learning_rates, values, strict=True):
            rate.fill_(value)
            group["lr"] = rate
        try:
            yield
        finally:
            for group, value in zip(groups, values, strict=True):
                group["lr"] = value
