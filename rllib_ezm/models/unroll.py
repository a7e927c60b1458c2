"""K-step unroll of the world model from an encoded observation (section 3, arXiv:2603.01452)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from rllib_ezm.models.world_model import WorldModel


class Unroll(NamedTuple):
    """Predictions along an unroll, K-major: states 0..K, transitions 0..K-1.

    `reward_logits` [K, B, Q], `value_logits` [K+1, V, B, Q], `mean` and `log_std` [K+1, B, A],
    `latent_predictions` [K, B, H] (projected and predicted h_1..h_K), `latent_targets` [K, B, H]
    (projected encodings of o_1..o_K, no gradient).
    """

    reward_logits: torch.Tensor
    value_logits: torch.Tensor
    mean: torch.Tensor
    log_std: torch.Tensor
    latent_predictions: torch.Tensor
    latent_targets: torch.Tensor


def scale_gradient(x: torch.Tensor, factor: float) -> torch.Tensor:
    """Identity in the forward pass; multiplies the gradient by `factor` in the backward pass."""
    return x * factor + x.detach() * (1.0 - factor)


def unroll_world_model(
    model: WorldModel,
    observations: torch.Tensor,
    actions: torch.Tensor,
    task_ids: torch.Tensor,
    *,
    latent_gradient_scale: float = 0.5,
) -> Unroll:
    """Encode o_0, then predict K steps with the executed actions.

    Args:
        model: The world model; in train mode BatchNorm takes its statistics anew at each step.
        observations: o_0..o_K, raw and padded [B, K+1, D].
        actions: a_0..a_{K-1} [B, K, A].
        task_ids: [B].
        latent_gradient_scale: Factor on the gradient into each predicted latent.

    Returns:
        All predictions, see `Unroll`.
    """
    batch, steps = actions.shape[:2]
    embedding = model.embed(task_ids)
    latent = model.represent(observations[:, 0], task_ids, embedding)
    rewards, predictions, latents = [], [model.predict(latent, embedding)], []
    for k in range(steps):
        rewards.append(model.reward(latent, actions[:, k], embedding))
        latent = model.dynamics(latent, actions[:, k], embedding)
        latent = scale_gradient(latent, latent_gradient_scale)
        latents.append(latent)
        predictions.append(model.predict(latent, embedding))
    with torch.no_grad():
        next_observations = observations[:, 1 : steps + 1].transpose(0, 1).flatten(0, 1)
        encoded = model.represent(
            next_observations, task_ids.repeat(steps), embedding.repeat(steps, 1)
        )
        targets = model.project(encoded, with_predictor=False)
    predicted = model.project(torch.cat(latents), with_predictor=True)
    return Unroll(
        reward_logits=torch.stack(rewards),
        value_logits=torch.stack([prediction.value_logits for prediction in predictions]),
        mean=torch.stack([prediction.mean for prediction in predictions]),
        log_std=torch.stack([prediction.log_std for prediction in predictions]),
        latent_predictions=predicted.view(steps, batch, -1),
        latent_targets=targets.view(steps, batch, -1),
    )
