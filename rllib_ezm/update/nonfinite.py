"""What to do about NaN and infinity in an update: skip it, count it, and stop after too many.

All of it happens on the device; the host looks at the count when it reads the metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

NamedParameters = Iterable[tuple[str, torch.nn.Parameter]]


class NonFiniteUpdatesError(RuntimeError):
    """Too many updates in a row had a non-finite loss or gradient; says which term and task."""


class NonFiniteGuard:
    """Lets updates with a non-finite loss or gradient have no effect, and counts them.

    A forward pass in training mode folds its activations into running statistics (BatchNorm,
    observation normalizer, variance windows): these are put back when the update is skipped.

    Args:
        limit: This many skipped updates, one after the other, raise an error.
        task_names: Names of the T tasks.
        buffers: The running statistics.

    Attributes:
        buffers: The running statistics.
        num_consecutive: Updates skipped since the last one that was not [], int64.
    """

    def __init__(
        self, limit: int, task_names: Sequence[str], buffers: Iterable[torch.Tensor]
    ) -> None:
        self.limit, self.task_names = limit, tuple(task_names)
        self.buffers = tuple(buffers)
        self._buffers = _by_dtype(self.buffers)
        self._before: list[torch.Tensor] = []
        device = self._buffers[0][0].device
        self.num_consecutive = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def remember_statistics(self) -> None:
        """Call it before the forward pass of an update."""
        self._before = [_flat(group) for group in self._buffers]

    @torch.no_grad()
    def judge(self, loss: torch.Tensor, gradient_norm: torch.Tensor) -> torch.Tensor:
        """Whether an update may be applied [], bool; if not, statistics are as before it.

        Args:
            loss: Scalar loss of the batch.
            gradient_norm: Norm of all gradients.
        """
        finite = torch.isfinite(gradient_norm) & torch.isfinite(loss)
        self.num_consecutive.add_(1).mul_(~finite)
        for group, before in zip(self._buffers, self._before, strict=True):
            kept = torch.where(finite, _flat(group), before)
            parts = kept.split([buffer.numel() for buffer in group])
            shaped = [part.view_as(buffer) for part, buffer in zip(parts, group, strict=True)]
            torch._foreach_copy_(group, shaped)
        return finite

    def check(
        self,
        terms: Mapping[str, torch.Tensor],
        task_ids: torch.Tensor,
        named_parameters: NamedParameters,
    ) -> None:
        """Read the count from the device.

        Args:
            terms: Loss terms per sample [B] each, of the last update, for the report.
            task_ids: Task of each sample [B], likewise.
            named_parameters: Parameters with their gradients, likewise.

        Raises:
            NonFiniteUpdatesError: The last `limit` updates, or more, were skipped.
        """
        skipped = int(self.num_consecutive)
        if skipped >= self.limit:
            raise NonFiniteUpdatesError(
                f"{skipped} updates in a row had a non-finite loss or gradient and "
                f"were skipped (max_consecutive_nonfinite_updates={self.limit}). In the last one: "
                f"{self.report(terms, task_ids, named_parameters)}. The weights are those before "
                "these updates. Lower lr or grad_clip, use train_precision='float32', or widen "
                "reward_support and value_support."
            )

    def report(
        self,
        terms: Mapping[str, torch.Tensor],
        task_ids: torch.Tensor,
        named_parameters: NamedParameters,
    ) -> str:
        """Which loss terms of which tasks are not finite; else which gradients are not."""
        found = []
        for name, term in terms.items():
            bad = ~torch.isfinite(term)
            for task in torch.unique(task_ids[bad]).tolist():
                of_task = task_ids == task
                found.append(
                    f"loss term {name!r} of task {self.task_names[task]} "
                    f"({int((bad & of_task).sum())} of {int(of_task.sum())} samples)"
                )
        if found:
            return ", ".join(found)
        names = [
            name
            for name, parameter in named_parameters
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all())
        ]
        return f"all loss terms are finite, but not the gradients of {', '.join(names[:5])}"


def _by_dtype(buffers: Iterable[torch.Tensor]) -> list[list[torch.Tensor]]:
    groups: dict[torch.dtype, list[torch.Tensor]] = {}
    for buffer in buffers:
        groups.setdefault(buffer.dtype, []).append(buffer)
    return [*groups.values()]


def _flat(buffers: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([buffer.reshape(-1) for buffer in buffers])
