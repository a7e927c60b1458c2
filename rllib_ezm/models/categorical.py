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
    """The exact inverse of `signed_hyperbolic`, elementwise.

    With `t = sqrt(|x| + 1) - 1`, `|y| = epsilon t^2 + (1 + 2 epsilon) t` and `|x| = t (t + 2)`. The
    root is taken in the form without cancellation: fp32 keeps its relative precision down to 0.
    """
    slope = 1.0 + 2.0 * EPSILON
    t = 2.0 * y.abs() / (slope + torch.sqrt(slope**2 + 4.0 * EPSILON * y.abs()))
    return torch.sign(y) * t * (t + 2.0)


def expected_scalar(logits: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
    """Scalar of categorical logits [..., Q] on atoms [..., Q] in `h`-space; broadcasts, in fp32."""
    probabilities = torch.softmax(logits.float(), dim=-1)
    # Not a matrix product: autocast would run that in half precision.
    return signed_parabolic((probabilities * atoms).sum(dim=-1))


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
        """Two-hot probabilities of scalars; [...] -> [..., Q]. Values outside are clamped.

        NaN gives NaN probabilities, so that the loss shows it.
        """
        y = signed_hyperbolic(x.float())
        spacing = (self.atoms[-1] - self.atoms[0]) / (self.num_bins - 1)
        lower = ((y - self.atoms[0]) / spacing).floor().nan_to_num().clamp(0, self.num_bins - 2)
        lower = lower.long()
        # Weights from the atoms themselves, so that `decode` is the inverse to fp32 rounding.
        below, above = self.atoms[lower], self.atoms[lower + 1]
        upper_weight = ((y - below) / (above - below)).clamp(0.0, 1.0).unsqueeze(-1)
        lower = lower.unsqueeze(-1)
        two_hot = torch.zeros(*x.shape, self.num_bins, device=x.device)
        two_hot.scatter_(-1, lower, 1.0 - upper_weight)
        return two_hot.scatter_(-1, lower + 1, upper_weight)

    def decode(self, logits: torch.Tensor) -> torch.Tensor:
        """Expected scalar of categorical logits; [..., Q] -> [...], in fp32 under autocast too."""
        return expected_scalar(logits, self.atoms)

    def overflow(self, x: torch.Tensor) -> torch.Tensor:
        """Mask of the scalars that the support cannot represent; [...] -> bool [...]."""
        return (x < self.low) | (x > self.high)
