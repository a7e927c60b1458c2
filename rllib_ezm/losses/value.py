"""Value loss (second term of eq. 7) of an ensemble of categorical heads."""

from __future__ import annotations

import torch


def head_mean_log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Mean over the `V` heads of log softmax(logits); [S, V, B, Q] -> [S, B, Q], in fp32.

    All heads have the same target, so the cross-entropy with this mean is their mean cross-entropy.
    """
    return torch.log_softmax(logits.float(), dim=-1).mean(dim=1)


def value_loss(
    log_probabilities: torch.Tensor, target_probabilities: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy, mean over the `V` heads, summed over the unrolled states.

    Also the path-consistency loss (eq. 8), with the targets of `path_consistency_target`.

    Args:
        log_probabilities: `head_mean_log_softmax` of the states' logits [K+1, B, Q].
        target_probabilities: Two-hot encoded target values [K+1, B, Q].
        mask: 1 where state k has a target [K+1, B].

    Returns:
        Loss per sample [B].
    """
    return -((target_probabilities * log_probabilities).sum(dim=-1) * mask).sum(dim=0)
