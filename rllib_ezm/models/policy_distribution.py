"""Tanh-squashed diagonal Gaussian over the real action dimensions of a task.

`a = tanh(mu + sigma * eps)`. Masked dimensions (mask 0) are padding: exactly 0 in every sample and
absent from log-probability and entropy, so they get exactly zero gradient.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

MAX_ACTION = 0.999
"""Actions are clipped to +-0.999, so that `atanh` stays finite (3.80)."""

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)

# Gauss-Hermite quadrature of a standard normal: exact for polynomials up to degree 15.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(8)
_QUADRATURE = tuple(zip(_NODES.tolist(), (_WEIGHTS / _WEIGHTS.sum()).tolist(), strict=True))


def bound_log_std(raw: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Map an unbounded network output to `[low, high]`: `low + (high - low)/2 (tanh(raw) + 1)`."""
    return low + 0.5 * (high - low) * (torch.tanh(raw) + 1.0)


def sample_squashed(
    mean: torch.Tensor,
    log_std: torch.Tensor,
    noise: torch.Tensor,
    std_scale: torch.Tensor | float,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Sample `clip(tanh(mean + std_scale * std * noise)) * mask`; all arguments broadcast.

    Args:
        mean: Pre-tanh mean [..., A].
        log_std: Log standard deviation [..., A], already bounded.
        noise: Standard normal draws [..., A].
        std_scale: Inflation of the standard deviation (1 for policy, 3 for wide candidates).
        mask: 1 for real, 0 for padded action dimensions [..., A].

    Returns:
        Actions [..., A] in [-0.999, 0.999], exactly 0 where masked.
    """
    pre_tanh = mean + std_scale * log_std.exp() * noise
    return torch.tanh(pre_tanh).clamp(-MAX_ACTION, MAX_ACTION) * mask


def mode_squashed(mean: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The squashed mean, `clip(tanh(mean)) * mask` [..., A]: the action without search."""
    return torch.tanh(mean).clamp(-MAX_ACTION, MAX_ACTION) * mask


def squashed_log_prob(
    action: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Log-density of squashed actions over the unmasked dimensions; [..., A] -> [...].

    `sum_d mask_d [log N(atanh(a_d); mu_d, sigma_d) - log(1 - a_d^2)]`; actions are clipped to
    +-0.999 first.
    """
    action = action.clamp(-MAX_ACTION, MAX_ACTION)
    deviation = (torch.atanh(action) - mean) * torch.exp(-log_std)
    log_normal = -0.5 * deviation.square() - log_std - _HALF_LOG_2PI
    log_jacobian = torch.log1p(-action.square())
    return ((log_normal - log_jacobian) * mask).sum(dim=-1)


def gaussian_entropy(log_std: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Entropy of the pre-tanh Gaussian over the unmasked dimensions, in nats; [..., A] -> [...]."""
    return ((log_std + 0.5 + _HALF_LOG_2PI) * mask).sum(dim=-1)


def squashed_entropy(mean: torch.Tensor, log_std: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Entropy of the squashed actions over the unmasked dimensions, in nats; [..., A] -> [...].

    `H(a) = H(u) + E[log(1 - tanh(u)^2)]`, u the Gaussian; the expectation by quadrature, without
    noise. At most log 2 per dimension (uniform actions), falling without bound as |mu| grows.
    """
    std, log_jacobian = log_std.exp(), torch.zeros_like(log_std)
    for node, weight in _QUADRATURE:
        pre_tanh = mean + node * std
        # log(1 - tanh(u)^2) in a form that does not overflow.
        slope = 2.0 * (math.log(2.0) - pre_tanh - functional.softplus(-2.0 * pre_tanh))
        log_jacobian = log_jacobian + weight * slope
    return gaussian_entropy(log_std, mask) + (log_jacobian * mask).sum(dim=-1)
