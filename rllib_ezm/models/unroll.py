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
    return torch.lerp(x.detach(), x, factor)


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
        model: The world model; in train mode BatchNorm takes its statistics anew at each step,
            although all steps go through reward, value and policy networks in one batch.
        observations: o_0..o_K, raw and padded [B, K+1, D].
        actions: a_0..a_{K-1} [B, K, A].
        task_ids: [B].
        latent_gradient_scale: Factor on the gradient into each predicted latent.

    Returns:
        All predictions, see `Unroll`.
    """
    steps = actions.shape[1]
    embedding = model.embed(task_ids)
    latents = [model.represent(observations[:, 0], task_ids, embedding)]
    for k in range(steps):
        latent = model.dynamics(latents[-1], actions[:, k], embedding)
        latents.append(scale_gradient(latent, latent_gradient_scale))
    # Rows are sample-major from here on: only the dynamics need one step before the next.
    states = torch.stack(latents, dim=1)
    transition_embedding = _repeat_rows(embedding, steps)
    reward_logits = model.reward(
        states[:, :-1].flatten(0, 1), actions.flatten(0, 1), transition_embedding, steps
    )
    prediction = model.predict(states.flatten(0, 1), _repeat_rows(embedding, steps + 1), steps + 1)
    predicted = model.project(states[:, 1:].flatten(0, 1), with_predictor=True)
    with torch.no_grad():
        encoded = model.represent(
            observations[:, 1 : steps + 1].flatten(0, 1),
            _repeat_rows(task_ids, steps),
            transition_embedding,
        )
        targets = model.project(encoded, with_predictor=False)
    return Unroll(
        reward_logits=_step_major(reward_logits, steps),
        value_logits=_step_major(prediction.value_logits, steps + 1),
        mean=_step_major(prediction.mean, steps + 1),
        log_std=_step_major(prediction.log_std, steps + 1),
        latent_predictions=_step_major(predicted, steps),
        latent_targets=_step_major(targets, steps),
    )


def _repeat_rows(x: torch.Tensor, steps: int) -> torch.Tensor:
    """Each row `steps` times in a row; [B, ...] -> [B * steps, ...]."""
    return x.unsqueeze(1).expand(-1, steps, *x.shape[1:]).flatten(0, 1)


def _step_major(x: torch.Tensor, steps: int) -> torch.Tensor:
    """A view with the steps in front; [..., B * steps, N] -> [steps, ..., B, N]."""
    return x.unflatten(-2, (-1, steps)).movedim(-2, 0)
