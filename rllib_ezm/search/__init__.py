"""Searches over a world model and their planners; torch only.

A search is one file: a subclass of `WorldModelPlanner`, and its name in `PLANNERS`.
"""

from __future__ import annotations

from rllib_ezm.search.gumbel import SearchOutput, gumbel_search
from rllib_ezm.search.gumbel_planner import GumbelPlanner
from rllib_ezm.search.halving import Round, sequential_halving_schedule, visit_table
from rllib_ezm.search.improved_policy import ImprovedPolicy, improved_policy
from rllib_ezm.search.planner import WorldModelPlanner
from rllib_ezm.search.registry import PLANNERS, planner_class
from rllib_ezm.search.sampling import SearchNoise, draw_noise
from rllib_ezm.search.settings import SearchSettings
from rllib_ezm.search.tree import Tree
from rllib_ezm.search.types import (
    Plan,
    Planner,
    RootInference,
    RootOutput,
    SearchModel,
    StepOutput,
)

__all__ = [
    "PLANNERS",
    "GumbelPlanner",
    "ImprovedPolicy",
    "Plan",
    "Planner",
    "RootInference",
    "RootOutput",
    "Round",
    "SearchModel",
    "SearchNoise",
    "SearchOutput",
    "SearchSettings",
    "StepOutput",
    "Tree",
    "WorldModelPlanner",
    "draw_noise",
    "gumbel_search",
    "improved_policy",
    "planner_class",
    "sequential_halving_schedule",
    "visit_table",
]
