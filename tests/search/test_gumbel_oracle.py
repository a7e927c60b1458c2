"""The batched search against the plain-Python oracle, node for node."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.random_model import SIZES, RandomModel, inputs, sized
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.search_oracle import OracleSearch, search_one_root

from rllib_ezm.search import SearchOutput, SearchSettings, gumbel_search


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_same_tree(
    found: SearchOutput, actions: torch.Tensor, row: int, oracle: OracleSearch
) -> None:
    def column(values: list[Any]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    close = {"rtol": 1e-9, "atol": 1e-9}
    tree, nodes = found.tree, oracle.nodes
    assert tree.visits[row].tolist() == [node.visits for node in nodes]
    assert tree.root_children[row].tolist() == [c or 0 for c in nodes[0].children]
    for name in ("value_sum", "reward", "raw_value"):
        expected = column([getattr(node, name) for node in nodes])
        torch.testing.assert_close(getattr(tree, name)[row], expected, **close)
    for index in range(1, tree.children.shape[1]):
        assert tree.children[row, index].tolist() == [c or 0 for c in nodes[index].children]
        torch.testing.assert_close(tree.latents[row, index], nodes[index].latent, **close)
    for node in nodes:
        for action, child in zip(node.actions, node.children, strict=False):
            if child is not None:
                torch.testing.assert_close(actions[row, child - 1], column(action), **close)
    torch.testing.assert_close(found.candidates[row], column(nodes[0].actions), **close)
    torch.testing.assert_close(found.scores[row], column(oracle.scores), **close)
    torch.testing.assert_close(found.q_values[row], column(oracle.q_values), **close)
    torch.testing.assert_close(found.value[row], column(nodes[0].value), **close)
    torch.testing.assert_close(found.action[row], column(oracle.action), **close)
    assert found.visit_counts[row].tolist() == oracle.visit_counts


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.sampled_from(SIZES),
    batch=st.integers(1, 5),
    seed=st.integers(0, 2**31),
    gumbel=st.booleans(),
    prior=st.sampled_from(["uniform", "policy"]),
    wide=st.booleans(),
    discount=st.sampled_from([0.99, 0.9, 1.0]),
    value_scale=st.sampled_from([0.0, 0.1, 1.0, 30.0]),
    replayed=st.booleans(),
)
def test_batched_search_equals_the_oracle_node_for_node(
    sizes: tuple[int, int],
    batch: int,
    seed: int,
    gumbel: bool,
    prior: str,
    wide: bool,
    discount: float,
    value_scale: float,
    replayed: bool,
) -> None:
    search = sized(
        *sizes,
        use_gumbel_noise=gumbel,
        root_prior=prior,
        wide_candidates=wide,
        discount=discount,
    )
    model = RandomModel(seed, value_scale)
    root, task_ids, mask, noise = inputs(model, batch, seed, search)
    # Replayed random actions may lie outside the range of the policy's.
    replayed_action = (2.0 * mask - 1.0) * 0.9995 if replayed else None
    found = gumbel_search(
        model,
        root,
        task_ids,
        mask,
        search,
        noise,
        replayed_action=replayed_action,
    )
    actions = model.actions(batch)
    for row in range(batch):
        oracle = search_one_root(
            model, root, row, task_ids, mask, search, noise, replayed_action=replayed_action
        )
        assert_same_tree(found, actions, row, oracle)


@pytest.mark.parametrize("sizes", SIZES)
def test_every_size_equals_the_oracle(sizes: tuple[int, int]) -> None:
    search = sized(*sizes)
    model = RandomModel(seed=1)
    root, task_ids, mask, noise = inputs(model, 5, 1, search)
    found = gumbel_search(model, root, task_ids, mask, search, noise)
    actions = model.actions(5)
    for row in range(5):
        oracle = search_one_root(model, root, row, task_ids, mask, search, noise)
        assert_same_tree(found, actions, row, oracle)


def share_of_changed_actions(search: SearchSettings, num_roots: int) -> float:
    """How often the released order of updates ("simulation") chooses another action."""
    changed = 0
    for seed in range(num_roots):
        model = RandomModel(seed)
        root, task_ids, mask, noise = inputs(model, 1, seed, search)
        per_round, per_simulation = (
            search_one_root(model, root, 0, task_ids, mask, search, noise, update).chosen
            for update in ("round", "simulation")
        )
        changed += per_round != per_simulation
    return changed / num_roots


def test_updating_per_round_rarely_changes_the_action() -> None:
    assert share_of_changed_actions(sized(32, 16), num_roots=60) < 0.1
