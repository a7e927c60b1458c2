"""The reference of the speed benchmarks: sequential search on the training network, in fp32.

It stands in for the released code: one model call per simulation, statistics updated after each,
all value heads and the policy at every node, nothing folded or cached.
"""

from __future__ import annotations

import torch
from sequential import sequential_search

from rllib_ezm.models.world_model import WorldModel
from rllib_ezm.search import (
    GumbelPlanner,
    Plan,
    RootInference,
    RootOutput,
    SearchNoise,
    SearchSettings,
    StepOutput,
)


class TrainingNetwork:
    """The reference's `SearchModel`: the training network as it is, all heads at every node."""

    def __init__(self, model: WorldModel) -> None:
        self.model = model

    def step(
        self, latent: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor
    ) -> StepOutput:
        model = self.model
        embedding = model.embed(task_ids)
        reward = model.reward_support.decode(model.reward(latent, action, embedding))
        latent = model.dynamics(latent, action, embedding)
        prediction = model.predict(latent, embedding)
        values = model.value_support.decode(prediction.value_logits)
        first, second = torch.randperm(len(values))[:2].tolist()
        value = torch.minimum(values[first], values[second])
        policy = torch.cat([prediction.mean, prediction.log_std], dim=-1)
        return StepOutput(latent, policy, reward, value)

    def policy(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = features.chunk(2, dim=-1)
        return mean, log_std

    def root(self, observations: torch.Tensor, task_ids: torch.Tensor) -> RootInference:
        model = self.model
        embedding = model.embed(task_ids)
        latent = model.represent(observations, task_ids, embedding)
        prediction = model.predict(latent, embedding, root=True)
        values = model.value_support.decode(prediction.value_logits)
        root = RootOutput(latent, values[:2].amin(0), prediction.mean, prediction.log_std)
        return RootInference(root, values.var(0))


class SequentialPlanner(GumbelPlanner):
    """A planner that takes the reference's way."""

    @torch.no_grad()
    def root(self, observations: torch.Tensor, task_ids: torch.Tensor) -> RootInference:
        return TrainingNetwork(self.model.eval()).root(observations, task_ids)

    @torch.no_grad()
    def plan(
        self,
        root: RootOutput,
        task_ids: torch.Tensor,
        settings: SearchSettings | None,
        *,
        noise: tuple[torch.Tensor, ...] | None = None,
        generator: torch.Generator | None = None,
        replayed_action: torch.Tensor | None = None,
    ) -> Plan:
        assert settings is not None
        mask = self.action_mask[task_ids]
        if noise is None:
            batch, action_dim = mask.shape
            noise = self.draw_noise(batch, action_dim, settings, mask.device, generator)
        model = TrainingNetwork(self.model.eval())
        found = sequential_search(
            model, root, task_ids, mask, settings, SearchNoise(*noise), replayed_action
        )
        weights = torch.softmax(found.scores, dim=-1)
        return Plan(found.action, found.value, found.candidates, weights)
