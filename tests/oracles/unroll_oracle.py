"""The K-step unroll the obvious way: every network once per step, BatchNorm as it comes."""

from __future__ import annotations

import torch

from rllib_ezm.models import WorldModel
from rllib_ezm.models.unroll import Unroll


def stepwise_unroll(
    model: WorldModel,
    observations: torch.Tensor,
    actions: torch.Tensor,
    task_ids: torch.Tensor,
    latent_gradient_scale: float = 0.5,
) -> Unroll:
    """What `unroll_world_model` must return, gradients and running statistics included."""
    steps = actions.shape[1]
    embedding = model.embed(task_ids)
    latent = model.represent(observations[:, 0], task_ids, embedding)
    rewards, predictions, predicted, targets = (
        [],
        [model.predict(latent, embedding, root=True)],
        [],
        [],
    )
    for k in range(steps):
        rewards.append(model.reward(latent, actions[:, k], embedding))
        latent = model.dynamics(latent, actions[:, k], embedding)
        scale = latent_gradient_scale
        latent = scale * latent + (1.0 - scale) * latent.detach()
        predictions.append(model.predict(latent, embedding))
        predicted.append(model.project(latent, with_predictor=True))
        encoded = model.represent(observations[:, k + 1], task_ids, embedding)
        targets.append(model.project(encoded, with_predictor=False).detach())
    values, means, log_stds = (torch.stack(x) for x in zip(*predictions, strict=True))
    return Unroll(
        reward_logits=torch.stack(rewards),
        value_logits=values,
        mean=means,
        log_std=log_stds,
        latent_predictions=torch.stack(predicted),
        latent_targets=torch.stack(targets),
    )
