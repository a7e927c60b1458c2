"""Batched Gumbel search with sequential halving; torch only."""

from __future__ import annotations

from rllib_ezm.search.gumbel import (
    RootOutput,
    SearchModel,
    SearchNoise,
    SearchOutput,
    StepOutput,
    draw_noise,
    gumbel_search,
)
from rllib_ezm.search.halving import Round, sequential_halving_schedule, visit_table
from rllib_ezm.search.settings import SearchSettings
from rllib_ezm.search.tree import Tree

__all__ = [
    "RootOutput",
    "Round",
    "SearchModel",
    "SearchNoise",
    "SearchOutput",
    "SearchSettings",
    "StepOutput",
    "Tree",
    "draw_noise",
    "gumbel_search",
    "sequential_halving_schedule",
    "visit_table",
]
