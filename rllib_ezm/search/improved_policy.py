"""The improved policy of a search, as compact as the policy loss allows: two moments per dimension.

The cross-entropy from weighted candidates to a squashed Gaussian depends on the candidates only
through the mean and the deviation of `atanh(a)` (and on a term that no parameter moves). So these
`2 A` numbers replace the candidates in targets and in the replay buffer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from rllib_ezm.models.policy_distribution import MAX_ACTION
from rllib_ezm.search.types import Plan


class ImprovedPolicy(NamedTuple):
    """Mean and standard deviation [..., A] of the improved policy's actions before tanh."""

    mean: torch.Tensor
    std: torch.Tensor


def improved_policy(plan: Plan, *, best_action_only: bool) -> ImprovedPolicy:
    """What the policy is to learn from a plan of B roots; padded dimensions are 0.

    Args:
        plan: With actions in [-1, 1].
        best_action_only: The best action alone, with deviation 0 (eq. 6), also where the plan has
            candidates; otherwise all candidates by their weights (eq. 5).
    """
    if best_action_only or plan.candidates is None or plan.weights is None:
        mean = _before_tanh(plan.action)
        return ImprovedPolicy(mean, torch.zeros_like(mean))
    before_tanh, weights = _before_tanh(plan.candidates), plan.weights.unsqueeze(-1)
    mean = (weights * before_tanh).sum(dim=-2)
    variance = (weights * (before_tanh - mean.unsqueeze(-2)).square()).sum(dim=-2)
    return ImprovedPolicy(mean, variance.sqrt())


def _before_tanh(action: torch.Tensor) -> torch.Tensor:
    return torch.atanh(action.clamp(-MAX_ACTION, MAX_ACTION))
