"""Temporal consistency of predicted and encoded latents (SimSiam; fourth term of eq. 7)."""

from __future__ import annotations

import torch


def temporal_consistency_loss(
    prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Negative cosine similarity with a stop-gradient target, summed over the unrolled steps.

    Args:
        prediction: Projected and predicted latents h_1..h_K [K, B, P].
        target: Projections of the encoded observations o_{t+1}..o_{t+K} [K, B, P].
        mask: 1 where transition k exists [K, B].

    Returns:
        Loss per sample [B], in [-K, K].
    """
    similarity = torch.cosine_similarity(prediction.float(), target.detach().float(), dim=-1)
    return -(similarity * mask).sum(dim=0)
