"""A forest of 16-ary sum trees in flat numpy arrays: set many and sample many, without loops."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FANOUT = 16

IntArray = npt.NDArray[np.int64]
DoubleArray = npt.NDArray[np.float64]


def level_widths(capacity: int) -> list[int]:
    """Padded nodes per level, each a multiple of FANOUT; the first level is one group of FANOUT."""
    widths: list[int] = []
    nodes = capacity
    while not widths or nodes > 1:
        groups = -(-nodes // FANOUT)
        widths.insert(0, groups * FANOUT)
        nodes = groups
    return widths


class SumTree:
    """`num_trees` sum trees of `capacity` non-negative leaves each, with exact sums and maxima.

    All trees are read and written together, so a draw over many tasks is one pass of
    O(log capacity) numpy calls. Parents are recomputed from their children, so sums do not drift.
    """

    def __init__(self, capacity: int, num_trees: int = 1) -> None:
        """Allocates zero leaves.

        Args:
            capacity: Leaves per tree.
            num_trees: Number of trees.

        Raises:
            ValueError: A size is not positive.
        """
        if capacity < 1 or num_trees < 1:
            raise ValueError(f"SumTree needs positive sizes, got {capacity=}, {num_trees=}.")
        self._widths = level_widths(capacity)
        self._sums = [np.zeros(num_trees * width) for width in self._widths]
        # A leaf is its own maximum, so the last level is shared.
        inner = [np.zeros(num_trees * width) for width in self._widths[:-1]]
        self._maxima = [*inner, self._sums[-1]]

    @staticmethod
    def required_bytes(capacity: int, num_trees: int) -> int:
        """Bytes that a forest of this size allocates."""
        widths = level_widths(capacity)
        return 8 * num_trees * (2 * sum(widths) - widths[-1])

    def set(self, trees: int | IntArray, leaves: IntArray, values: DoubleArray | float) -> None:
        """Sets leaves `[n]` of `trees` (one tree, or `[n]`); of a repeated leaf the last wins."""
        self._sums[-1][trees * self._widths[-1] + leaves] = values
        nodes = leaves
        for level in range(len(self._widths) - 1, 0, -1):
            nodes = nodes // FANOUT
            groups = trees * (self._widths[level] // FANOUT) + nodes
            parents = trees * self._widths[level - 1] + nodes
            sums = self._sums[level].reshape(-1, FANOUT).take(groups, axis=0)
            maxima = self._maxima[level].reshape(-1, FANOUT).take(groups, axis=0)
            self._sums[level - 1][parents] = sums.sum(axis=1)
            self._maxima[level - 1][parents] = maxima.max(axis=1)

    def refill(self, tree: int, values: DoubleArray) -> None:
        """Sets the first leaves of one tree to `values` and all others to 0, as `set` would."""
        width = self._widths[-1]
        leaves = self._sums[-1][tree * width : (tree + 1) * width]
        leaves[: len(values)] = values
        leaves[len(values) :] = 0.0
        sums = maxima = leaves
        for level in range(len(self._widths) - 2, -1, -1):
            sums = sums.reshape(-1, FANOUT).sum(axis=1)
            maxima = maxima.reshape(-1, FANOUT).max(axis=1)
            width = self._widths[level]
            sums = np.pad(sums, (0, width - len(sums)))
            maxima = np.pad(maxima, (0, width - len(maxima)))
            self._sums[level][tree * width : (tree + 1) * width] = sums
            self._maxima[level][tree * width : (tree + 1) * width] = maxima

    def get(self, trees: int | IntArray, leaves: IntArray) -> DoubleArray:
        """Values `[n]` of leaves `[n]`."""
        return self._sums[-1].take(trees * self._widths[-1] + leaves)

    def totals(self) -> DoubleArray:
        """Sum of the leaves of every tree, `[num_trees]`."""
        totals: DoubleArray = self._sums[0].reshape(-1, FANOUT).sum(axis=1)
        return totals

    def maximum(self, tree: int) -> float:
        """Largest leaf of one tree."""
        return float(self._maxima[0][tree * FANOUT : (tree + 1) * FANOUT].max())

    def sample(self, trees: IntArray, mass: DoubleArray) -> IntArray:
        """Leaves at which the cumulative sum of each tree first exceeds `mass`.

        A leaf of value 0 is never returned from a tree whose total is positive, whatever the
        rounding of `mass`.

        Args:
            trees: `[n]`, tree of each query.
            mass: `[n]`, in `[0, total)` of that tree.

        Returns:
            Leaf indices `[n]`.
        """
        nodes = np.zeros_like(trees)
        rest = mass.copy()
        rows = np.arange(len(trees))
        for sums, width in zip(self._sums, self._widths, strict=True):
            groups = trees * (width // FANOUT) + nodes
            cumulative = sums.reshape(-1, FANOUT).take(groups, axis=0).cumsum(axis=1)
            np.minimum(rest, np.nextafter(cumulative[:, -1], 0.0), out=rest)
            child = (cumulative > rest[:, None]).argmax(axis=1)
            before = cumulative[rows, child - 1]
            rest -= np.where(child > 0, before, 0.0)
            nodes = nodes * FANOUT + child
        return nodes
