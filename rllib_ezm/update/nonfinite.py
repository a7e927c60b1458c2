"""What to do about NaN and infinity in an update: skip it, count it, and stop after too many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

NamedParameters = Iterable[tuple[str, torch.nn.Parameter]]


class NonFiniteUpdatesError(RuntimeError):
    """Too many updates in a row had a non-finite loss or gradient; says which term and task."""


class NonFiniteGuard:
    """Refuses updates with a non-finite loss or gradient, and undoes what their forward pass left.

    A forward pass in training mode folds its activations into running statistics (BatchNorm,
    observation normalizer, variance windows): these are put back when the update is skipped.

    Args:
        limit: This many skipped updates, one after the other, raise an error.
        task_names: Names of the T tasks.
        buffers: The running statistics.
    """

    def __init__(
        self, limit: int, task_names: Sequence[str], buffers: Iterable[torch.Tensor]
    ) -> None:
        self.limit, self.task_names = limit, tuple(task_names)
        self.num_consecutive = 0
        self._buffers = list(buffers)
        self._before = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def remember_statistics(self) -> None:
        """Call it before the forward pass of an update."""
        torch._foreach_copy_(self._before, self._buffers)

    @torch.no_grad()
    def allows(
        self,
        loss: torch.Tensor,
        gradient_norm: torch.Tensor,
        terms: Mapping[str, torch.Tensor],
        task_ids: torch.Tensor,
        named_parameters: NamedParameters,
    ) -> bool:
        """Whether the update may be applied; if not, the running statistics are as before it.

        Args:
            loss: Scalar loss of the batch.
            gradient_norm: Norm of all gradients.
            terms: Loss terms per sample [B] each, read for the report only.
            task_ids: Task of each sample [B], likewise.
            named_parameters: Parameters with their gradients, likewise.

        Raises:
            NonFiniteUpdatesError: It is the `limit`-th refused update one after the other.
        """
        if bool(torch.isfinite(gradient_norm) & torch.isfinite(loss)):
            self.num_consecutive = 0
            return True
        torch._foreach_copy_(self._buffers, self._before)
        self.num_consecutive += 1
        if self.num_consecutive >= self.limit:
            raise NonFiniteUpdatesError(
                f"{self.num_consecutive} updates in a row had a non-finite loss or gradient and "
                f"were skipped (max_consecutive_nonfinite_updates={self.limit}). In the last one: "
                f"{self.report(terms, task_ids, named_parameters)}. The weights are those before "
                "these updates. Lower lr or grad_clip, use train_precision='float32', or widen "
                "reward_support and value_support."
            )
        return False

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
