"""BatchNorm that keeps the steps of an unroll apart although they come in one batch."""

from __future__ import annotations

import torch
from torch import nn


class StepBatchNorm(nn.BatchNorm1d):
    """BatchNorm of [B * steps, C] with statistics per unroll step; parameters as `nn.BatchNorm1d`.

    In train mode the result is that of `steps` calls of `nn.BatchNorm1d` with [B, C], one step
    after the other: each step is normalised by its own batch, and the running statistics move once
    per step, in step order. In eval mode every row is normalised alike.
    """

    momentum: float
    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)

    def forward(self, x: torch.Tensor, steps: int = 1) -> torch.Tensor:
        """Normalise [B * steps, C], where the `steps` rows of a sample follow one another."""
        if steps == 1 or not self.training:
            return super().forward(x)
        # A row of [B, steps * C] holds a sample's steps: one kernel takes all statistics, and with
        # momentum 1 it leaves them, the variance unbiased, in the buffers it is given.
        statistics = self.running_mean.new_zeros(2, steps * self.num_features)
        normalized = nn.functional.batch_norm(
            x.reshape(-1, steps * self.num_features),
            statistics[0],
            statistics[1],
            self.weight.repeat(steps),
            self.bias.repeat(steps),
            training=True,
            momentum=1.0,
            eps=self.eps,
        )
        self._fold(statistics.view(2, steps, self.num_features))
        return normalized.view(-1, self.num_features)

    @torch.no_grad()
    def _fold(self, statistics: torch.Tensor) -> None:
        """Move the running statistics by the mean and variance of each step [2, steps, C].

        `steps` updates `r <- (1 - m) r + m x_s` end in `(1 - m)^S r + sum_s m (1 - m)^(S-1-s) x_s`.
        """
        steps, keep = statistics.shape[1], 1.0 - self.momentum
        weights = [self.momentum * keep ** (steps - 1 - step) for step in range(steps)]
        # Not a matrix product: autocast would run that in half precision.
        mean, variance = (statistics * statistics.new_tensor(weights)[:, None]).sum(dim=1)
        self.running_mean.mul_(keep**steps).add_(mean)
        self.running_var.mul_(keep**steps).add_(variance)
        self.num_batches_tracked.add_(steps)
