"""One test per formula of the tree, each against a value worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rllib_ezm.search.tree import (
    Scoring,
    Tree,
    allocate_tree,
    backup,
    completed_q,
    descend,
    evaluate_root_children,
    finish_root,
    normalize,
    select_children,
    sigma,
)

SCORING = Scoring(discount=0.5, c_visit=50.0, c_scale=0.1, minmax_delta=0.01)


def small_tree() -> Tree:
    """Root (v = 1) -> node 1 (r = 2, v = 4) -> its child 1, node 2 (r = 6, v = 8)."""
    tree = allocate_tree(torch.zeros(1, 3), torch.tensor([1.0]), 2, 4, 3)
    tree.root_children[0, 1] = 1
    tree.reward[0, 1:3] = torch.tensor([2.0, 6.0])
    tree.raw_value[0, 1:3] = torch.tensor([4.0, 8.0])
    backup(tree, torch.zeros(1, 1, 0).long(), torch.tensor([[1]]), torch.tensor([[4.0]]), 0.5)
    tree.children[0, 1, 1] = 2
    backup(tree, torch.tensor([[[1, 0]]]), torch.tensor([[2]]), torch.tensor([[8.0]]), 0.5)
    return tree


def test_completed_q_is_v_mix_where_unvisited() -> None:
    q = completed_q(
        raw_value=torch.tensor([2.0]),
        child_q=torch.tensor([[4.0, 8.0, 123.0]]),
        child_visits=torch.tensor([[1.0, 2.0, 0.0]]),
        prior=torch.tensor([[0.5, 0.25, 0.25]]),
    )
    weighted_mean = (0.5 * 4.0 + 0.25 * 8.0) / 0.75
    torch.testing.assert_close(q, torch.tensor([[4.0, 8.0, (2.0 + 3 * weighted_mean) / 4]]))


def test_completed_q_without_visits_is_the_raw_value() -> None:
    q = completed_q(torch.tensor([2.0]), torch.tensor([[9.0, 7.0]]), torch.zeros(1, 2), 1.0)
    assert q.tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 4.0, [0.0, 0.5, 1.0]),
        (1.9995, 2.0005, [0.0, 0.05, 1.0]),
        (math.inf, -math.inf, [0.0, 0.0, 0.0]),
    ],
    ids=["range", "delta floor", "empty"],
)
def test_normalize(low: float, high: float, expected: list[float]) -> None:
    q, bottom, top, result = (
        torch.tensor(numbers, dtype=torch.float64)
        for numbers in ([[-1.0, 2.0, 5.0]], [low], [high], [expected])
    )
    torch.testing.assert_close(normalize(q, bottom, top, 0.01), result)


def test_backup_discounts_rewards_on_the_way_up() -> None:
    tree = small_tree()
    return_of_1 = 6.0 + 0.5 * 8.0
    assert tree.visits.tolist() == [[0.0, 2.0, 1.0, 0.0]]
    assert tree.q[0, 1:3].tolist() == [2.0 + 0.5 * (4.0 + return_of_1) / 2, 6.0 + 0.5 * 8.0]
    assert tree.value_sum.tolist() == [[1.0, 4.0 + return_of_1, 8.0, 0.0]]
    first_edge = 2.0 + 0.5 * 4.0
    second_edges = [6.0 + 0.5 * 8.0, 2.0 + 0.5 * return_of_1]
    assert tree.low.item() == min(first_edge, *second_edges)
    assert tree.high.item() == max(first_edge, *second_edges)


def test_root_value_is_the_mean_over_the_visits() -> None:
    tree = small_tree()
    root_returns = [1.0, 2.0 + 0.5 * 4.0, 2.0 + 0.5 * 10.0]
    assert finish_root(tree).item() == pytest.approx(sum(root_returns) / 3)
    assert tree.visits[0, 0].item() == 3


def test_sigma_grows_with_the_largest_visit_count() -> None:
    tree = small_tree()
    result = sigma(tree, torch.tensor([[4.0, 10.0]]), torch.tensor([[0.0, 2.0]]), SCORING)
    torch.testing.assert_close(result, torch.tensor([[0.0, 5.2]]))


def test_root_children_statistics() -> None:
    q, sigma_q, visits = evaluate_root_children(small_tree(), torch.tensor([[0.5, 0.5]]), SCORING)
    visited_q = 2.0 + 0.5 * (4.0 + 10.0) / 2
    v_mix = (1.0 + 2 * visited_q) / 3
    torch.testing.assert_close(q, torch.tensor([[v_mix, visited_q]]))
    torch.testing.assert_close(sigma_q, 5.2 * (q - 4.0) / 6.0)
    assert visits.tolist() == [[0.0, 2.0]]


def test_inner_selection_weighs_policy_against_visits() -> None:
    """At node 1 the visited child (norm 1) beats v_mix = 7 (norm 0.5) by more than its visits."""
    slot, node = select_children(small_tree(), SCORING)
    policy = torch.softmax(torch.tensor([5.1 * 0.5, 5.1 * 1.0]), 0)
    assert policy[1] - 1 / 2 > policy[0]
    assert (slot[0, 1].item(), node[0, 1].item()) == (1, 2)


def test_unvisited_children_tie_and_the_first_is_opened() -> None:
    slot, node = select_children(small_tree(), SCORING)
    assert (slot[0, 2].item(), node[0, 2].item()) == (0, 0)


def test_descent_stops_at_the_node_to_expand() -> None:
    path, parent, slot = descend(small_tree(), torch.tensor([[1]]), 3, SCORING)
    assert path.tolist() == [[[1, 2, 0]]]
    assert parent.item() == 2
    assert slot.item() == 0
