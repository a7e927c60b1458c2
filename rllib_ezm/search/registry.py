"""The planners by the name that a config gives them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from rllib_ezm.models.world_model import WorldModel
from rllib_ezm.search.gumbel_planner import GumbelPlanner
from rllib_ezm.search.planner import WorldModelPlanner

PLANNERS: dict[str, type[WorldModelPlanner]] = {"gumbel": GumbelPlanner}


def planner_class(planner: Any) -> type[WorldModelPlanner]:
    """The class behind a name in `PLANNERS`; a planner class stands for itself.

    Raises:
        ValueError: If the name is unknown, or the class is no planner or an incomplete one.
    """
    if isinstance(planner, str) and planner in PLANNERS:
        return PLANNERS[planner]
    if not (isinstance(planner, type) and issubclass(planner, WorldModelPlanner)):
        raise ValueError(
            f"planner={planner!r} is unknown; use one of {tuple(PLANNERS)}, or a subclass of "
            "rllib_ezm.search.WorldModelPlanner."
        )
    if inspect.isabstract(planner):
        missing = sorted(planner.__abstractmethods__)
        raise ValueError(f"planner={planner.__name__} does not define {', '.join(missing)}.")
    return planner


def make_planner(
    options: Mapping[str, Any], model: WorldModel, action_mask: torch.Tensor
) -> WorldModelPlanner:
    """A planner over a world model.

    Args:
        options: Fields of `PlanningSettings`.
        model: The model.
        action_mask: [T, A], 1 for the real action dimensions of each task.

    Raises:
        ValueError: If a name among the options is unknown.
    """
    return planner_class(options["planner"])(
        model,
        action_mask,
        value_reduction=options["value_reduction"],
        value_clip_min=options["value_clip_min"],
        precision=options["inference_precision"],
    )
