"""Categorical representation of rewards and values on a transformed support.

`h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x` (Pohlen et al. 2018) compresses the range; scalars
are two-hot encoded on `Q` atoms that are equally spaced in `h`-space.
"""

from __future__ import annotations

import torch
from torch import nn

EPSILON = 0.001


def signed_hyperbolic(x: torch.Tensor) -> torch.Tensor:
    """`h(x) = sign(x) (sqrt(|x| + 1) - 1) + 0.001 x`, elementwise."""
    return torch.sign(x) * (torch.sqrt(x.abs() + 1.0) - 1.0) + EPSILON * x


def signed_parabolic(y: torch.Tensor) -> torch.Tensor:
    """The exact inverse of `signed_hyperbolic`, elementwise."""
    root = torch.sqrt(1.0 + 4.0 * EPSILON * (y.abs() + 1.0 + EPSILON))
    return torch.sign(y) * (((root - 1.0) / (2.0 * EPSILON)).square() - 1.0)


class CategoricalSupport(nn.Module):
    """`Q` atoms equally spaced in `h`-space over `[h(low), h(high)]`.

    Args:
        low: Smallest scalar that can be represented (reward or return units).
        high: Largest scalar that can be represented.
        num_bins: Number of atoms `Q`, at least 2.

    Raises:
        ValueError: If `low >= high` or `num_bins < 2`.
    """

    atoms: torch.Tensor

    def __init__(self, low: float, high: float, num_bins: int) -> None:
        super().__init__()
        if low >= high:
            raise ValueError(f"support range needs low < high, got ({low}, {high})")
        if num_bins < 2:
            raise ValueError(f"a categorical support needs at least 2 bins, got {num_bins}")
        self.low, self.high, self.num_bins = float(low), float(high), num_bins
        ends = signed_hyperbolic(torch.tensor([low, high], dtype=torch.float64))
        atoms = torch.linspace(float(ends[0]), float(ends[1]), num_bins, dtype=torch.float64)
        self.register_buffer("atoms", atoms.to(torch.float32), persistent=False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Two-hot probabilities of scalars; [...] -> [..., Q]. Values outside are clamped."""
        spacing = self.atoms[1] - self.atoms[0]
        position = (signed_hyperbolic(x.float()) - self.atoms[0]) / spacing
        position = position.clamp(0.0, self.num_bins - 1)
        lower = position.floor().clamp(max=self.num_bins - 2)
        upper_weight = (position - lower).unsqueeze(-1)
        lower_index = lower.long().unsqueeze(-1)
        two_hot = torch.zeros(*x.shape, self.num_bins, device=x.device)
        two_hot.scatter_(-1, lower_index, 1.0 - upper_weight)
        return two_hot.scatter_(-1, lower_index + 1, upper_weight)

    def decode(self, logits: torch.Tensor) -> torch.Tensor:
        """Expected scalar of categorical logits; [..., Q] -> [...], computed in fp32."""
        return signed_parabolic(torch.softmax(logits.float(), dim=-1) @ self.atoms)

    def overflow(self, x: torch.Tensor) -> torch.Tensor:
        """Mask of the scalars that the support cannot represent; [...] -> bool [...]."""
        return (x < self.low) | (x > self.high)
