"""The training network as a model of the search: no folding, all heads, nothing cached."""

from __future__ import annotations

import torch

from rllib_ezm.models import WorldModel
from rllib_ezm.search import RootOutput, StepOutput


class PlainSearchModel:
    """`SearchModel` of a world model in eval mode; the value is the mean over the heads."""

    def __init__(self, model: WorldModel) -> None:
        self.model = model.eval()

    def root(self, observations: torch.Tensor, task_ids: torch.Tensor) -> RootOutput:
        embedding = self.model.embed(task_ids)
        latent = self.model.represent(observations, task_ids, embedding)
        prediction = self.model.predict(latent, embedding, root=True)
        value = self.model.value_support.decode(prediction.value_logits).mean(0)
        return RootOutput(latent, value, prediction.mean, prediction.log_std)

    def step(
        self, latent: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor
    ) -> StepOutput:
        embedding = self.model.embed(task_ids)
        reward = self.model.reward_support.decode(self.model.reward(latent, action, embedding))
        latent = self.model.dynamics(latent, action, embedding)
        prediction = self.model.predict(latent, embedding)
        value = self.model.value_support.decode(prediction.value_logits).mean(0)
        features = torch.cat([prediction.mean, prediction.log_std], dim=-1)
        return StepOutput(latent, features, reward, value)

    def policy(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = features.chunk(2, dim=-1)
        return mean, log_std
