"""Sequential halving: the static schedule of visits, and the choice of the survivors.

The schedule depends on the two search sizes alone, never on a value, so every round of a batched
search has shapes known in advance.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch


class Round(NamedTuple):
    """One round: each of the first `num_visits` of `num_active` survivors is visited once."""

    num_active: int
    num_visits: int


@lru_cache(maxsize=64)
def sequential_halving_schedule(num_simulations: int, num_candidates: int) -> tuple[Round, ...]:
    """Split S simulations over N candidates into rounds of at most one visit per survivor.

    There are `P = max(1, ceil(log2 N))` phases. A phase with m survivors spends
    `max(1, floor(S / P / m)) * m` simulations and keeps `floor(m / 2)` of them, the last phase
    spends what is left, and the whole is cut at exactly S. Survivors are halved between two
    rounds whose `num_active` differ.

    Args:
        num_simulations: S, at least 1.
        num_candidates: N, at least 1.

    Returns:
        The rounds in order; their `num_visits` add up to S, and only the last may be partial.

    Raises:
        ValueError: If S or N is below 1.

    Source: sequential halving (Karnin et al. 2013) as in Gumbel MuZero (Danihelka et al. 2022).
    """
    if num_simulations < 1 or num_candidates < 1:
        raise ValueError(
            "sequential halving needs num_simulations >= 1 and num_candidates >= 1, got "
            f"{num_simulations} and {num_candidates}"
        )
    num_phases = max(1, (num_candidates - 1).bit_length())
    rounds: list[Round] = []
    num_active, left = num_candidates, num_simulations
    for phase in range(num_phases):
        budget = max(1, num_simulations // (num_phases * num_active)) * num_active
        spent = left if phase == num_phases - 1 else min(budget, left)
        left -= spent
        while spent > 0:
            rounds.append(Round(num_active, min(num_active, spent)))
            spent -= rounds[-1].num_visits
        num_active = max(1, num_active // 2)
    return tuple(rounds)


def visit_table(num_simulations: int, num_candidates: int) -> tuple[int, ...]:
    """Visits of each candidate, by final rank: `(32, 16)` gives 4,4,4,4, 2,2,2,2, then eight 1s.

    Raises:
        ValueError: If a size is below 1.
    """
    visits = [0] * num_candidates
    for one_round in sequential_halving_schedule(num_simulations, num_candidates):
        for rank in range(one_round.num_visits):
            visits[rank] += 1
    return tuple(visits)


def num_expandable_nodes(num_simulations: int, num_candidates: int) -> int:
    """Nodes that may get children: the root and the nodes of every round but the last.

    Raises:
        ValueError: If a size is below 1.
    """
    rounds = sequential_halving_schedule(num_simulations, num_candidates)
    return 1 + num_simulations - rounds[-1].num_visits


def keep_best(scores: torch.Tensor, survivors: torch.Tensor, num_kept: int) -> torch.Tensor:
    """Halve the survivors [B, m] by their scores; best first, lower candidate first on ties.

    Args:
        scores: g(a) of every candidate [B, N].
        survivors: Candidates still in the race [B, m].
        num_kept: How many to keep.

    Returns:
        The new survivors [B, num_kept].
    """
    eliminated = torch.full_like(scores, -float("inf")).scatter_(1, survivors, 0.0)
    order = (scores + eliminated).argsort(dim=-1, descending=True, stable=True)
    return order[:, :num_kept]
