"""The sum forest against plain numpy sums, maxima and cumulative searches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_ezm.replay import SumTree
from rllib_ezm.replay.sum_tree import level_widths

SIZES = st.sampled_from([1, 2, 15, 16, 17, 255, 256, 257, 5000])


@pytest.mark.parametrize(
    ("capacity", "widths"),
    [(1, [16]), (16, [16]), (17, [16, 32]), (256, [16, 256]), (257, [16, 32, 272])],
)
def test_levels_are_padded_to_whole_groups(capacity: int, widths: list[int]) -> None:
    assert level_widths(capacity) == widths


@settings(max_examples=60, deadline=None)
@given(capacity=SIZES, num_trees=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_forest_agrees_with_plain_arrays(capacity: int, num_trees: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree = SumTree(capacity, num_trees)
    plain = np.zeros((num_trees, capacity))
    for _ in range(5):
        count = int(rng.integers(1, 2 * capacity + 1))
        trees, leaves = rng.integers(num_trees, size=count), rng.integers(capacity, size=count)
        values = rng.exponential(size=count) * rng.integers(0, 2, size=count)
        tree.set(trees, leaves, values)
        for owner, leaf, value in zip(trees, leaves, values, strict=True):
            plain[owner, leaf] = value
    np.testing.assert_allclose(tree.totals(), plain.sum(axis=1), rtol=1e-12)
    assert [tree.maximum(i) for i in range(num_trees)] == plain.max(axis=1).tolist()
    everything = np.arange(num_trees * capacity)
    assert (tree.get(everything // capacity, everything % capacity) == plain.ravel()).all()

    nonzero = np.flatnonzero(plain.sum(axis=1))
    queries = nonzero[rng.integers(max(len(nonzero), 1), size=50 * bool(len(nonzero)))]
    mass = rng.random(len(queries)) * plain.sum(axis=1)[queries]
    expected = [
        np.searchsorted(plain[t].cumsum(), m, side="right")
        for t, m in zip(queries, mass, strict=True)
    ]
    assert tree.sample(queries, mass).tolist() == expected


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, 1e-300, 1e-9, 0.1, 1.0, 3.0, 1e30]), min_size=1),
    tree_index=st.integers(0, 2),
)
def test_zero_leaves_are_never_drawn_at_any_boundary(values: list[float], tree_index: int) -> None:
    leaves = np.array(values)
    if not leaves.any():
        leaves[0] = 1.0
    tree = SumTree(len(leaves), 3)
    tree.set(tree_index, np.arange(len(leaves)), leaves)
    total = tree.totals()[tree_index]
    edges = np.concatenate([[0.0, total, np.nextafter(total, np.inf)], leaves.cumsum()])
    drawn = tree.sample(np.full(len(edges), tree_index), edges)
    assert (leaves[drawn] > 0).all()


@settings(max_examples=40, deadline=None)
@given(capacity=SIZES, seed=st.integers(0, 2**32 - 1))
def test_refill_is_bitwise_what_set_gives(capacity: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.exponential(size=rng.integers(0, capacity + 1))
    by_set, by_refill = SumTree(capacity, 3), SumTree(capacity, 3)
    order = rng.permutation(len(values))
    by_set.set(1, order, values[order])
    by_refill.set(1, np.arange(capacity), 7.0)
    by_refill.refill(1, values)
    assert by_set.totals().tobytes() == by_refill.totals().tobytes()
    assert by_set.maximum(1) == by_refill.maximum(1) == (values.max() if len(values) else 0.0)
    if len(values):
        mass = rng.random(200) * by_set.totals()[1]
        queries = np.ones(200, np.int64)
        assert (by_set.sample(queries, mass) == by_refill.sample(queries, mass)).all()


def test_required_bytes_is_what_is_allocated() -> None:
    tree = SumTree(5000, 3)
    arrays = {id(array): array.nbytes for array in tree._sums + tree._maxima}
    assert sum(arrays.values()) == SumTree.required_bytes(5000, 3)


def test_sizes_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        SumTree(0)
