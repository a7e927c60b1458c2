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
        model: The world model; in train mode BatchNorm takes its statistics over all steps jointly.
        observations: o_0..o_K, raw and padded [B, K+1, D].
        actions: a_0..a_{K-1} [B, K, A].
        task_ids: [B].
        latent_gradient_scale: Factor on the gradient into each predicted latent.

    Returns:
        All predictions, see `Unroll`.
    """
    batch, steps = actions.shape[:2]
    embedding = model.embed(task_ids)
    latents = [model.represent(observations[:, 0], task_ids, embedding)]
    for k in range(steps):
        latent = model.dynamics(latents[-1], actions[:, k], embedding)
        latents.append(scale_gradient(latent, latent_gradient_scale))
    # Only the dynamics are sequential: every head sees all steps as the rows of one batch.
    states, before, after = torch.cat(latents), torch.cat(latents[:-1]), torch.cat(latents[1:])
    step_embedding = embedding.repeat(steps, 1)
    rewards = model.reward(before, actions.transpose(0, 1).flatten(0, 1), step_embedding)
    prediction = model.predict(states, embedding.repeat(steps + 1, 1))
    with torch.no_grad():
        next_observations = observations[:, 1 : steps + 1].transpose(0, 1).flatten(0, 1)
        encoded = model.represent(next_observations, task_ids.repeat(steps), step_embedding)
        targets = model.project(encoded, with_predictor=False)
    num_heads = prediction.value_logits.shape[0]
    return Unroll(
        reward_logits=rewards.view(steps, batch, -1),
        value_logits=prediction.value_logits.view(num_heads, steps + 1, batch, -1).transpose(0, 1),
        mean=prediction.mean.view(steps + 1, batch, -1),
        log_std=prediction.log_std.view(steps + 1, batch, -1),
        latent_predictions=model.project(after, with_predictor=True).view(steps, batch, -1),
        latent_targets=targets.view(steps, batch, -1),
    )
