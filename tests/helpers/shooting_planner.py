"""Random shooting: a search that has nothing in common with the Gumbel search but its model."""

from __future__ import annotations

from typing import Any

import torch

from rllib_ezm.models.policy_distribution import sample_squashed
from rllib_ezm.search import Plan, RootOutput, SearchModel, SearchSettings, WorldModelPlanner


class ShootingPlanner(WorldModelPlanner):
    """Imagines `num_candidates` rollouts of `horizon` steps with the policy; the best one acts."""

    horizon = 3

    def draw_noise(
        self,
        batch: int,
        action_dim: int,
        settings: SearchSettings,
        device: torch.device,
        generator: torch.Generator | None,
    ) -> tuple[torch.Tensor]:
        shape = (batch, settings.num_candidates, self.horizon, action_dim)
        return (torch.randn(shape, generator=generator, device=device),)

    def search(
        self,
        model: SearchModel,
        root: RootOutput,
        task_ids: torch.Tensor,
        action_mask: torch.Tensor,
        settings: SearchSettings,
        noise: tuple[torch.Tensor, ...],
        replayed_action: Any,
    ) -> Plan:
        inputs = (root.latent, root.mean, root.log_std, action_mask, task_ids)
        latent, mean, log_std, mask, tasks = (
            x.repeat_interleave(settings.num_candidates, dim=0) for x in inputs
        )
        actions, returns, discount = [], torch.zeros_like(mean[:, 0]), 1.0
        for drawn in noise[0].flatten(0, 1).unbind(1):
            actions.append(sample_squashed(mean, log_std, drawn, 1.0, mask))
            step = model.step(latent, actions[-1], tasks)
            returns, discount = returns + discount * step.reward, discount * settings.discount
            latent, (mean, log_std) = step.latent, model.policy(step.features)
        returns = (returns + discount * step.value).view(len(task_ids), -1)
        best = returns.argmax(-1) + torch.arange(len(task_ids)) * settings.num_candidates
        return Plan(actions[0][best], returns.mean(-1), None, None)
