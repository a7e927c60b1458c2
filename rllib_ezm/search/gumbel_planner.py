"""The planner of EZ-M: the Gumbel search over a world model."""

from __future__ import annotations

from typing import ClassVar

import torch

from rllib_ezm.search.gumbel import gumbel_search
from rllib_ezm.search.planner import WorldModelPlanner
from rllib_ezm.search.sampling import SearchNoise, draw_noise
from rllib_ezm.search.settings import SearchSettings
from rllib_ezm.search.types import Plan, RootOutput, SearchModel


class GumbelPlanner(WorldModelPlanner):
    """Plans with `gumbel_search`; the weights are the improved policy softmax(g) (eq. 5)."""

    gives_candidates: ClassVar[bool] = True

    def draw_noise(
        self,
        batch: int,
        action_dim: int,
        settings: SearchSettings,
        device: torch.device,
        generator: torch.Generator | None,
    ) -> SearchNoise:
        """Draw the noise of the candidates, of the children and of the scores."""
        return draw_noise(batch, action_dim, settings, device, generator=generator)

    def search(
        self,
        model: SearchModel,
        root: RootOutput,
        task_ids: torch.Tensor,
        action_mask: torch.Tensor,
        settings: SearchSettings,
        noise: tuple[torch.Tensor, ...],
        replayed_action: torch.Tensor | None,
    ) -> Plan:
        """Search B roots, see `gumbel_search`."""
        found = gumbel_search(
            model,
            root,
            task_ids,
            action_mask,
            settings,
            SearchNoise(*noise),
            replayed_action=replayed_action,
        )
        weights = torch.softmax(found.scores, dim=-1)
        return Plan(found.action, found.value, found.candidates, weights)
