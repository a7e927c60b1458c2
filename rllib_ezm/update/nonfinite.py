"""What to do about NaN and infinity in an update: skip it, count it, and stop after too many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

NamedParameters = Iterable[tuple[str, torch.nn.Parameter]]


class NonFiniteUpdatesError(RuntimeError):
    """Too many updates in a row had a non-finite loss or gradient; says which term and task."""


class NonFiniteGuard:
    """Counts non-finite updates in a row, and undoes what their forward pass left behind.

    A forward pass in training mode folds its activations into running statistics (BatchNorm,
    observation normalizer, variance windows): these are put back when the update is skipped.

    Args:
        limit: So many skipped updates in a row raise an error.
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
        self._loss: torch.Tensor | None = None
        self._terms: dict[str, torch.Tensor] = {}
        self._task_ids = torch.empty(0, dtype=torch.long)

    @torch.no_grad()
    def begin(self) -> None:
        """Call it before the forward pass of an update."""
        torch._foreach_copy_(self._before, self._buffers)

    def remember(
        self, loss: torch.Tensor, terms: Mapping[str, torch.Tensor], task_ids: torch.Tensor
    ) -> None:
        """Keep the loss, its terms [B] each and the tasks [B], for `check` and its report."""
        self._loss = loss.detach()
        self._terms = {name: term.detach() for name, term in terms.items()}
        self._task_ids = task_ids

    @torch.no_grad()
    def check(self, gradient_norm: torch.Tensor, named_parameters: NamedParameters) -> bool:
        """Whether the update may be applied; if not, the running statistics are as before it.

        Args:
            gradient_norm: Norm of all gradients.
            named_parameters: Parameters with their gradients, read for the report only.

        Raises:
            NonFiniteUpdatesError: It is the `limit`-th update in a row that may not.
        """
        assert self._loss is not None, "call remember() first"
        if bool(torch.isfinite(gradient_norm) & torch.isfinite(self._loss)):
            self.num_consecutive = 0
            return True
        torch._foreach_copy_(self._buffers, self._before)
        self.num_consecutive += 1
        if self.num_consecutive >= self.limit:
            raise NonFiniteUpdatesError(
                f"{self.num_consecutive} updates in a row had a non-finite loss or gradient and "
                f"were skipped (max_consecutive_nonfinite_updates={self.limit}). In the last one: "
                f"{self.report(named_parameters)}. The weights are those before these updates. "
                "Lower lr or grad_clip, use train_precision='float32', or widen reward_support "
                "and value_support."
            )
        return False

    def report(self, named_parameters: NamedParameters) -> str:
        """Which loss terms of which tasks are not finite; else which gradients are not."""
        found = []
        for name, term in self._terms.items():
            bad = ~torch.isfinite(term)
            for task in torch.unique(self._task_ids[bad]).tolist():
                of_task = self._task_ids == task
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
