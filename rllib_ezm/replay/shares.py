"""Who gets how much of a batch, and what each draw counts for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
DoubleArray = npt.NDArray[np.float64]


def balanced_shares(batch_size: int, num_parts: int, rotation: int) -> IntArray:
    """Splits a batch evenly; the remainder starts at part `rotation % num_parts`.

    Args:
        batch_size: `B`.
        num_parts: Number of parts.
        rotation: Sum of the earlier remainders, so that they go round all parts in turn.

    Returns:
        Sizes of the parts, `[num_parts]`, which sum to `B`.
    """
    share, remainder = divmod(batch_size, num_parts)
    shares = np.full(num_parts, share, np.int64)
    shares[(rotation + np.arange(remainder)) % num_parts] += 1
    return shares


def importance_weights(
    priorities: DoubleArray, shares: IntArray, beta: float, floor: float
) -> DoubleArray:
    """Importance weights `(N p)^-beta`, max-normalized per share, at least `floor`.

    `p` is proportional to the priority, so `N` and the sum of the priorities cancel in the
    normalization: `w = (smallest drawn priority / priority)^beta`.

    Args:
        priorities: `[B]`, positive, the shares one after the other.
        shares: Sizes of the shares, summing to `B`.
        beta: Exponent.
        floor: Smallest weight.

    Returns:
        Weights `[B]` in `[floor, 1]`.
    """
    sizes = shares[shares > 0]
    smallest = np.minimum.reduceat(priorities, np.cumsum(sizes) - sizes)
    return np.maximum((np.repeat(smallest, sizes) / priorities) ** beta, floor)
