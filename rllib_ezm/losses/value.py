"""Value loss (second term of eq. 7) of an ensemble of categorical heads."""

from __future__ import annotations

import torch

from rllib_ezm.losses.reward import cross_entropy


def value_loss(
    logits: torch.Tensor, target_probabilities: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy, mean over the `V` heads, summed over the unrolled states.

    Also the path-consistency loss (eq. 8), with the targets of `path_consistency_target`.

    Args:
        logits: [K+1, V, B, Q].
        target_probabilities: Two-hot encoded target values [K+1, B, Q].
        mask: 1 where state k has a target [K+1, B].

    Returns:
        Loss per sample [B].
    """
    per_head = cross_entropy(logits, target_probabilities.unsqueeze(1))
    return (per_head.mean(dim=1) * mask).sum(dim=0)
