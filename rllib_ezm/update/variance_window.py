"""Running range of the value-head variance per task, for the mixed value target (section 4.1)."""

from __future__ import annotations

import torch
from torch import nn

from rllib_ezm.models.collective import TakesBatchStatistics
from rllib_ezm.update.value_targets import variance_mixing_weight


class VarianceWindow(TakesBatchStatistics, nn.Module):
    """Minimum and maximum variance of each task over a decaying window.

    Each update moves both ends towards each other by the share `1 - decay` of their distance, and
    then widens them to the new batch, so that old extremes fade. Several learners widen them to the
    batches of all.

    Args:
        num_tasks: T.
        decay: In (0, 1); 1 / (1 - decay) updates is the window's time constant.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, num_tasks: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("low", torch.full((num_tasks,), torch.inf))
        self.register_buffer("high", torch.full((num_tasks,), -torch.inf))

    @torch.no_grad()
    def update(self, variance: torch.Tensor, mask: torch.Tensor, task_ids: torch.Tensor) -> None:
        """Fold in the variances [B, K+1] of tasks [B]; masked entries (mask 0) do not count."""
        valid = mask > 0
        batch_low = variance.masked_fill(~valid, torch.inf).amin(dim=1)
        batch_high = variance.masked_fill(~valid, -torch.inf).amax(dim=1)
        spread = torch.where(torch.isfinite(self.high), self.high - self.low, 0.0)
        shrink = (1.0 - self.decay) * spread
        self.low.add_(shrink).scatter_reduce_(0, task_ids, batch_low, "amin")
        self.high.sub_(shrink).scatter_reduce_(0, task_ids, batch_high, "amax")
        self.low.copy_(self.collective.minimum(self.low))
        self.high.copy_(self.collective.maximum(self.high))

    def alpha(self, variance: torch.Tensor, task_ids: torch.Tensor) -> torch.Tensor:
        """Weight of the TD value for variances [B, K+1] of tasks [B]; [B, K+1] in [0, 1]."""
        return variance_mixing_weight(variance, self.low[task_ids, None], self.high[task_ids, None])
