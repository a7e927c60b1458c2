"""Running observation normalization that respects which task owns which dimension."""

from __future__ import annotations

import torch
from torch import nn

from rllib_ezm.models.collective import TakesBatchStatistics


class ObservationNormalizer(TakesBatchStatistics, nn.Module):
    """Cumulative mean and variance per observation dimension, shared by all tasks.

    A dimension's statistics count only observations of tasks that own it; padded dimensions are 0
    after normalization, always. Statistics change in `update` only, never in `forward`; several
    learners fold in the batches of all.

    Args:
        observation_mask: [T, D], 1 where the task owns the dimension.
        clip: Normalized values are clipped to +-clip (standard deviations).
    """

    mean: torch.Tensor
    variance: torch.Tensor
    count: torch.Tensor
    observation_mask: torch.Tensor

    def __init__(self, observation_mask: torch.Tensor, clip: float = 10.0) -> None:
        super().__init__()
        dim = observation_mask.shape[1]
        self.clip = clip
        self.register_buffer("observation_mask", observation_mask.float())
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self.register_buffer("count", torch.zeros(dim))

    @torch.no_grad()
    def update(self, observations: torch.Tensor, task_ids: torch.Tensor) -> None:
        """Fold a batch into the statistics (Chan et al.'s parallel update).

        Args:
            observations: Raw observations [B, D].
            task_ids: Task of each row [B].
        """
        owned = self.observation_mask[task_ids]
        observations = observations.float()
        of_own = torch.stack([owned.sum(dim=0), (observations * owned).sum(dim=0)])
        batch_count, batch_sum = self.collective.sum(of_own)
        safe_count = batch_count.clamp(min=1.0)
        batch_mean = batch_sum / safe_count
        squares = ((observations - batch_mean).square() * owned).sum(dim=0)
        batch_variance = self.collective.sum(squares) / safe_count
        total = self.count + batch_count
        safe_total = total.clamp(min=1.0)
        delta = batch_mean - self.mean
        spread = self.variance * self.count + batch_variance * batch_count
        spread = spread + delta.square() * self.count * batch_count / safe_total
        seen = batch_count > 0
        self.mean.copy_(torch.where(seen, self.mean + delta * batch_count / safe_total, self.mean))
        self.variance.copy_(torch.where(seen, spread / safe_total, self.variance))
        self.count.copy_(total)

    def forward(self, observations: torch.Tensor, task_ids: torch.Tensor) -> torch.Tensor:
        """Normalize [M, D] observations of tasks [M]; padded dimensions become exactly 0."""
        scaled = (observations - self.mean) * torch.rsqrt(self.variance + 1e-5)
        return scaled.clamp(-self.clip, self.clip) * self.observation_mask[task_ids]
