"""BatchNorm that keeps the steps of an unroll apart although they come in one batch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from rllib_ezm.models.collective import TakesBatchStatistics


class StepBatchNorm(TakesBatchStatistics, nn.BatchNorm1d):
    """BatchNorm of [B * steps, C] with statistics per unroll step; parameters as `nn.BatchNorm1d`.

    In train mode the result is that of `steps` calls of `nn.BatchNorm1d` with [B, C], one step
    after the other: each step is normalized by its own batch, and the running statistics move once
    per step, in step order. In eval mode every row is normalized alike. With several learners the
    batch is all of theirs.
    """

    momentum: float
    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self._step_weights: dict[tuple[int, torch.dtype, torch.device], torch.Tensor] = {}

    def statistics(self, root: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance [C] by which eval mode normalizes; `root` makes no difference here."""
        return self.running_mean, self.running_var

    def forward(self, x: torch.Tensor, steps: int = 1, root: bool = False) -> torch.Tensor:
        """Normalize [B * steps, C], where the `steps` rows of a sample follow one another.

        The first of several steps is a root, the others are not; `root` says what a single one is.
        """
        if not self.training:
            return self._by_running_statistics(x, steps, root)
        if self.collective.size > 1:
            normalized, statistics = self._by_shared_statistics(x, steps)
        else:
            normalized, statistics = self._by_own_statistics(x, steps)
        self._follow(statistics.view(2, steps, self.num_features), root or steps > 1)
        return normalized.view(-1, self.num_features)

    def _by_own_statistics(self, x: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        # A row of [B, steps * C] holds a sample's steps: one kernel takes all statistics, and with
        # momentum 1 it leaves them, the variance unbiased, in the buffers it is given.
        statistics = self.running_mean.new_zeros(2, steps * self.num_features)
        normalized = functional.batch_norm(
            x.reshape(-1, steps * self.num_features),
            statistics[0],
            statistics[1],
            self.weight.repeat(steps),
            self.bias.repeat(steps),
            training=True,
            momentum=1.0,
            eps=self.eps,
        )
        return normalized, statistics

    def _by_shared_statistics(
        self, x: torch.Tensor, steps: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same over the rows of all learners, of which each has as many."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        rows = x.reshape(-1, steps * self.num_features).to(dtype)
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        moments = self.collective.sum(torch.stack([mean, variance + mean.square()]))
        mean, square = moments / self.collective.size
        variance = (square - mean.square()).clamp(min=0.0)
        scale = self.weight.repeat(steps) * torch.rsqrt(variance + self.eps)
        normalized = ((rows - mean) * scale + self.bias.repeat(steps)).to(x.dtype)
        count = rows.shape[0] * self.collective.size
        statistics = torch.stack([mean, variance * (count / (count - 1))]).detach()
        return normalized, statistics

    def _by_running_statistics(self, x: torch.Tensor, steps: int, root: bool) -> torch.Tensor:
        mean, variance = self.statistics(root)
        return functional.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)

    @torch.no_grad()
    def _follow(self, statistics: torch.Tensor, starts_at_root: bool) -> None:
        """Move the running statistics by the mean and variance of each step [2, steps, C].

        `steps` updates `r <- (1 - m) r + m x_s` end in `(1 - m)^S r + sum_s m (1 - m)^(S-1-s) x_s`.
        """
        steps, keep = statistics.shape[1], 1.0 - self.momentum
        weights = self._weights_of(steps, statistics)
        # Not a matrix product: autocast would run that in half precision.
        mean, variance = (statistics * weights[:, None]).sum(dim=1)
        self.running_mean.mul_(keep**steps).add_(mean)
        self.running_var.mul_(keep**steps).add_(variance)
        self.num_batches_tracked.add_(steps)

    def _weights_of(self, steps: int, like: torch.Tensor) -> torch.Tensor:
        """`m (1 - m)^(S-1-s)` of S steps [S]; copied to the device once, not in every update."""
        key = (steps, like.dtype, like.device)
        if key not in self._step_weights:
            keep = 1.0 - self.momentum
            weights = [self.momentum * keep ** (steps - 1 - step) for step in range(steps)]
            self._step_weights[key] = like.new_tensor(weights)
        return self._step_weights[key]


class RootStepBatchNorm(StepBatchNorm):
    """`StepBatchNorm` with running statistics of their own for the first step of an unroll.

    That step's latents are encoded observations, as at the root of a search; the others are
    imagined, as in its tree. Their distributions differ, and training normalizes each by its own
    batch: a value of an encoded observation read through the statistics of imagined ones is biased,
    and bootstrapping multiplies the bias.
    """

    root_mean: torch.Tensor
    root_var: torch.Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.register_buffer("root_mean", torch.zeros(num_features))
        self.register_buffer("root_var", torch.ones(num_features))

    def statistics(self, root: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance [C] by which eval mode normalizes encoded or imagined latents."""
        return (self.root_mean, self.root_var) if root else super().statistics()

    def _by_running_statistics(self, x: torch.Tensor, steps: int, root: bool) -> torch.Tensor:
        if steps == 1:
            return super()._by_running_statistics(x, steps, root)
        each = x.unflatten(0, (-1, steps)).unbind(dim=1)
        rows = [self._by_running_statistics(x, 1, root=step == 0) for step, x in enumerate(each)]
        return torch.stack(rows, dim=1).flatten(0, 1)

    @torch.no_grad()
    def _follow(self, statistics: torch.Tensor, starts_at_root: bool) -> None:
        if starts_at_root:
            self.root_mean.lerp_(statistics[0, 0], self.momentum)
            self.root_var.lerp_(statistics[1, 0], self.momentum)
            statistics = statistics[:, 1:]
        if statistics.shape[1] > 0:
            super()._follow(statistics, starts_at_root=False)
