"""The whole objective: the weighted sum of all terms (eq. 9, arXiv:2603.01452)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rllib_ezm.losses.consistency import path_consistency_target, temporal_consistency_loss
from rllib_ezm.losses.policy import policy_entropy, policy_loss
from rllib_ezm.losses.reward import reward_loss
from rllib_ezm.losses.value import head_mean_log_softmax, value_loss
from rllib_ezm.models.unroll import Unroll
from rllib_ezm.models.world_model import WorldModel
from rllib_ezm.update.targets import Targets


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms; `entropy` positive is a bonus, negative minimises entropy."""

    reward: float = 1.0
    value: float = 0.25
    policy: float = 1.0
    temporal_consistency: float = 5.0
    path_consistency: float = 0.25
    entropy: float = 0.0


def loss_terms(
    model: WorldModel,
    unroll: Unroll,
    targets: Targets,
    *,
    discount: float,
    squashed_entropy: bool = False,
) -> dict[str, torch.Tensor]:
    """Every loss term per sample, unweighted: name -> [B].

    `squashed_entropy`: see `policy_entropy`.
    """
    with torch.no_grad():
        rewards = model.reward_support.decode(unroll.reward_logits)
        next_values = model.value_support.decode(unroll.value_logits[1:]).mean(dim=1)
    path_target = path_consistency_target(rewards, next_values, targets.alive, discount=discount)
    value_log_probabilities = head_mean_log_softmax(unroll.value_logits)
    return {
        "reward": reward_loss(
            unroll.reward_logits,
            model.reward_support.encode(targets.reward),
            targets.transition_mask,
        ),
        "value": value_loss(
            value_log_probabilities, model.value_support.encode(targets.value), targets.value_mask
        ),
        "policy": policy_loss(
            unroll.mean,
            unroll.log_std,
            targets.policy_mean,
            targets.policy_std,
            targets.action_mask,
            targets.policy_mask,
        ),
        "temporal_consistency": temporal_consistency_loss(
            unroll.latent_predictions, unroll.latent_targets, targets.transition_mask
        ),
        "path_consistency": value_loss(
            value_log_probabilities[:-1],
            model.value_support.encode(path_target),
            targets.transition_mask,
        ),
        "entropy": -policy_entropy(
            unroll.mean,
            unroll.log_std,
            targets.action_mask,
            targets.policy_mask,
            squashed=squashed_entropy,
        ),
    }


def total_loss(terms: dict[str, torch.Tensor], weights: LossWeights) -> torch.Tensor:
    """Weighted sum of the terms per sample [B] (eq. 9)."""
    return torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum(dim=0)
