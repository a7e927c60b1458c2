"""BatchNorm that keeps the steps of an unroll apart although they come in one batch."""

from __future__ import annotations

import torch
from torch import nn


class StepBatchNorm(nn.BatchNorm1d):
    """BatchNorm of [B * steps, C] with statistics per unroll step; parameters as `nn.BatchNorm1d`.

    In train mode each step is normalised by its own batch: the result is that of `steps` calls of
    `nn.BatchNorm1d` with [B, C]. The running statistics are those of the first step, the encoded
    observations, and move once a call; in eval mode every row is normalised by them. Had the later,
    imagined steps a part in them, the eval mode would not give the values that were trained: 2 %
    less on the walkers, and the error of a bootstrapped value grows by 1 / (1 - discount^n).
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
        self._follow(*statistics.view(2, steps, self.num_features)[:, 0])
        return normalized.view(-1, self.num_features)

    @torch.no_grad()
    def _follow(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Move the running statistics towards the mean and variance [C] of a batch."""
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)
