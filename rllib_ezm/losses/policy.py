"""Policy losses: maximum likelihood of the search's result (eq. 6), and the entropy bonus."""

from __future__ import annotations

import torch

from rllib_ezm.models.policy_distribution import (
    gaussian_entropy,
    squashed_entropy,
    squashed_log_prob,
)


def best_action_loss(
    mean: torch.Tensor,
    log_std: torch.Tensor,
    best_action: torch.Tensor,
    action_mask: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """`-log pi(a* | h_k)` of the search's best action, summed over the unrolled states (eq. 6).

    Args:
        mean: [K+1, B, A].
        log_std: [K+1, B, A].
        best_action: [K+1, B, A].
        action_mask: 1 for the task's real action dimensions [B, A].
        mask: 1 where state k has a target [K+1, B].

    Returns:
        Loss per sample [B], in nats.
    """
    return -(squashed_log_prob(best_action, mean, log_std, action_mask) * mask).sum(dim=0)


def candidate_distribution_loss(
    mean: torch.Tensor,
    log_std: torch.Tensor,
    candidates: torch.Tensor,
    weights: torch.Tensor,
    action_mask: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy to the improved policy: `-sum_j softmax(g)_j log pi(a_j | h_k)` (eq. 5).

    Args:
        mean: [K+1, B, A].
        log_std: [K+1, B, A].
        candidates: Root candidates [K+1, B, N, A].
        weights: Improved policy softmax(g) over the candidates [K+1, B, N].
        action_mask: [B, A].
        mask: [K+1, B].

    Returns:
        Loss per sample [B], in nats.
    """
    log_prob = squashed_log_prob(
        candidates, mean.unsqueeze(2), log_std.unsqueeze(2), action_mask.unsqueeze(1)
    )
    return -((weights * log_prob).sum(dim=-1) * mask).sum(dim=0)


def policy_entropy(
    mean: torch.Tensor,
    log_std: torch.Tensor,
    action_mask: torch.Tensor,
    mask: torch.Tensor,
    *,
    squashed: bool,
) -> torch.Tensor:
    """Entropy of the policy summed over the unrolled states, in nats.

    Args:
        mean: [K+1, B, A].
        log_std: [K+1, B, A].
        action_mask: [B, A].
        mask: [K+1, B].
        squashed: Of the actions; False for that of the Gaussian before tanh, which does not depend
            on the mean.

    Returns:
        Entropy per sample [B]; subtract it from a loss, times a coefficient, for a bonus.
    """
    if squashed:
        entropy = squashed_entropy(mean, log_std, action_mask)
    else:
        entropy = gaussian_entropy(log_std, action_mask)
    return (entropy * mask).sum(dim=0)
