from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rllib_ezm.search.halving import (
    keep_best,
    num_expandable_nodes,
    sequential_halving_schedule,
    visit_table,
)

VISIT_TABLES = {
    (32, 16): (4, 4, 4, 4, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1),
    (16, 8): (4, 4, 2, 2, 1, 1, 1, 1),
    (8, 4): (3, 3, 1, 1),
    (7, 5): (2, 2, 1, 1, 1),
    (50, 16): (12, 12, 5, 5, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1),
    (3, 8): (1, 1, 1, 0, 0, 0, 0, 0),
    (1, 1): (1,),
}


@pytest.mark.parametrize(("sizes", "table"), VISIT_TABLES.items())
def test_visit_table(sizes: tuple[int, int], table: tuple[int, ...]) -> None:
    assert visit_table(*sizes) == table


def test_paper_sizes_need_four_rounds() -> None:
    assert sequential_halving_schedule(32, 16) == ((16, 16), (8, 8), (4, 4), (4, 4))
    assert num_expandable_nodes(32, 16) == 1 + 16 + 8 + 4


@given(num_simulations=st.integers(1, 300), num_candidates=st.integers(1, 40))
def test_schedule_is_exact_and_only_the_last_round_is_partial(
    num_simulations: int, num_candidates: int
) -> None:
    rounds = sequential_halving_schedule(num_simulations, num_candidates)
    assert sum(r.num_visits for r in rounds) == num_simulations
    assert all(r.num_visits == r.num_active for r in rounds[:-1])
    assert 1 <= rounds[-1].num_visits <= rounds[-1].num_active
    assert rounds[0].num_active == num_candidates
    actives = [r.num_active for r in rounds]
    for before, after in pairwise(actives):
        assert after in (before, max(1, before // 2))
    table = visit_table(num_simulations, num_candidates)
    assert list(table) == sorted(table, reverse=True)


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0), (-1, 1)])
def test_impossible_sizes_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="num_simulations >= 1 and num_candidates >= 1"):
        sequential_halving_schedule(*sizes)


def test_keep_best_ignores_the_eliminated_and_breaks_ties_by_index() -> None:
    scores = torch.tensor([[9.0, 1.0, 2.0, 2.0, 1.0], [0.0, 0.0, 0.0, 5.0, 0.0]])
    survivors = torch.tensor([[3, 4, 2, 1], [4, 3, 2, 0]])
    kept = keep_best(scores, survivors, 3)
    assert kept.tolist() == [[2, 3, 1], [3, 0, 2]]
