"""Reward loss (first term of eq. 7, arXiv:2603.01452)."""

from __future__ import annotations

import torch


def cross_entropy(logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """`-sum_q p_q log softmax(logits)_q`; [..., Q], [..., Q] -> [...], computed in fp32."""
    return -(probabilities * torch.log_softmax(logits.float(), dim=-1)).sum(dim=-1)


def reward_loss(
    logits: torch.Tensor, target_probabilities: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of the predicted rewards, summed over the unrolled steps.

    Args:
        logits: [K, B, Q].
        target_probabilities: Two-hot encoded rewards [K, B, Q].
        mask: 1 where transition k exists [K, B].

    Returns:
        Loss per sample [B].
    """
    return (cross_entropy(logits, target_probabilities) * mask).sum(dim=0)
