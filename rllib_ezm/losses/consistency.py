"""Consistency of an unroll with itself: of its latents (SimSiam, eq. 7), of its values (eq. 8)."""

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


def path_consistency_target(
    reward: torch.Tensor, next_value: torch.Tensor, alive: torch.Tensor, *, discount: float
) -> torch.Tensor:
    """`sg(r + gamma mean_V v(h_{k+1}))`, no bootstrap into a terminal state (eq. 8).

    Args:
        reward: Decoded predicted rewards [K, B].
        next_value: Mean over heads of the decoded values at k+1 [K, B].
        alive: 0 where state k+1 is terminal, else 1 [K, B].
        discount: gamma per decision.

    Returns:
        Detached targets [K, B].
    """
    return (reward + discount * alive * next_value).detach()
