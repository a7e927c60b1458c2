"""Policy loss: maximum likelihood of the search's result (eqs. 5, 6), and the entropy bonus."""

from __future__ import annotations

import math

import torch

from rllib_ezm.models.policy_distribution import gaussian_entropy, squashed_entropy

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def policy_loss(
    mean: torch.Tensor,
    log_std: torch.Tensor,
    target_mean: torch.Tensor,
    target_std: torch.Tensor,
    action_mask: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy from the improved policy to the policy, before tanh, over the unrolled states.

    With `u = atanh(a)`, `m` and `s` the mean and deviation of `u` under the improved policy:
    `-E log N(u; mu, sigma) = sum_d ((m - mu)^2 + s^2) / (2 sigma^2) + log(sigma sqrt(2 pi))`.
    Its gradient is that of `-sum_j softmax(g)_j log pi(a_j | h_k)` over the candidates (eq. 5), and
    with s = 0 that of `-log pi(a* | h_k)` of the best action (eq. 6): tanh adds only
    `E log(1 - a^2)`, which no parameter moves.

    Args:
        mean: mu [K+1, B, A].
        log_std: log sigma [K+1, B, A].
        target_mean: m [K+1, B, A], see `improved_policy`.
        target_std: s [K+1, B, A].
        action_mask: 1 for the task's real action dimensions [B, A].
        mask: 1 where state k has a target [K+1, B].

    Returns:
        Loss per sample [B], in nats.
    """
    squares = (target_mean - mean).square() + target_std.square()
    per_dimension = 0.5 * squares * torch.exp(-2.0 * log_std) + log_std + _HALF_LOG_2PI
    return ((per_dimension * action_mask).sum(dim=-1) * mask).sum(dim=0)


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
