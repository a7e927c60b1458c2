"""Imagination against data: how far the unrolled model is off, by unroll depth and task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from rllib_ezm.losses.consistency import path_consistency_target
from rllib_ezm.models.world_model import WorldModel
from rllib_ezm.update.value_targets import alive_mask, state_masks, td_targets


class Imagined(NamedTuple):
    """An unroll with executed actions beside the encodings of what was then observed.

    `latents` [B, K+1, H], `rewards` [B, K] and `head_values` [V, B, K+1] along the unroll;
    `real_latents` [B, K+n+1, H] and `real_values` [B, K+n+1] of the observations.
    """

    latents: torch.Tensor
    rewards: torch.Tensor
    head_values: torch.Tensor
    real_latents: torch.Tensor
    real_values: torch.Tensor


class ModelErrors(NamedTuple):
    """Means per task and depth; NaN where a task has no data.

    `reward` [T, K]: |imagined - real| of transition k. `latent` [T, K]: distance of h_1..h_K from
    the encoded observation, relative to its norm. `value` [T, K+1]: |imagined value - n-step
    return bootstrapped by the same network|. `value_variance` [T, K+1] over the value heads.
    `path_gap` [T, K]: |v(h_k) - (r_k + gamma v(h_{k+1}))| (eq. 8). `reward_overflow`,
    `value_overflow` [T, 1]: share of rewards and returns outside the support. `age` [T, 1]:
    transitions of the task that are newer than the sample.
    """

    reward: torch.Tensor
    latent: torch.Tensor
    value: torch.Tensor
    value_variance: torch.Tensor
    path_gap: torch.Tensor
    reward_overflow: torch.Tensor
    value_overflow: torch.Tensor
    age: torch.Tensor


@torch.no_grad()
def model_errors(
    model: WorldModel,
    batch: Mapping[str, torch.Tensor],
    *,
    unroll_steps: int,
    td_steps: int,
    discount: float,
) -> ModelErrors:
    """Unroll the model from the first state of each segment, and compare.

    Args:
        model: In eval mode: BatchNorm uses its running statistics, as in the search.
        batch: Columns of `MultiTaskReplayBuffer.sample`.
        unroll_steps: K.
        td_steps: n.
        discount: gamma per decision.
    """
    steps, task_ids = unroll_steps, batch["task_ids"]
    num_tasks = model.spec.num_tasks
    imagined = imagine(model, batch["obs"], batch["actions"][:, :steps], task_ids)
    rewards, transitions = batch["rewards"][:, :steps], batch["step_mask"][:, :steps]
    _, value_mask = state_masks(batch["step_mask"], batch["terminal"], steps)
    returns = td_targets(
        batch["rewards"],
        batch["step_mask"],
        batch["terminal"],
        imagined.real_values,
        discount=discount,
        unroll_steps=steps,
        td_steps=td_steps,
    )
    values = imagined.head_values.mean(dim=0)
    path_targets = path_consistency_target(
        imagined.rewards,
        values[:, 1:],
        alive_mask(batch["step_mask"], batch["terminal"], steps),
        discount=discount,
    )
    real = imagined.real_latents[:, 1 : steps + 1]
    distance = (imagined.latents[:, 1:] - real).norm(dim=-1) / real.norm(dim=-1)

    def mean(of: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return task_means(of, mask, task_ids, num_tasks)

    def share(of: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        rows = task_ids.repeat_interleave(of.shape[1])
        return task_means(of.reshape(-1, 1), mask.reshape(-1, 1), rows, num_tasks)

    return ModelErrors(
        reward=mean((imagined.rewards - rewards).abs(), transitions),
        latent=mean(distance, transitions),
        value=mean((values - returns).abs(), value_mask),
        value_variance=mean(imagined.head_values.var(dim=0, unbiased=False), value_mask),
        path_gap=mean((values[:, :-1] - path_targets).abs(), transitions),
        reward_overflow=share(model.reward_support.overflow(rewards), transitions),
        value_overflow=share(model.value_support.overflow(returns), value_mask),
        age=mean(batch["age"][:, None], torch.ones_like(batch["age"])[:, None]),
    )


def imagine(
    model: WorldModel, observations: torch.Tensor, actions: torch.Tensor, task_ids: torch.Tensor
) -> Imagined:
    """Unroll from o_0 [B, K+n+1, D] with actions a_0..a_{K-1} [B, K, A] of tasks [B]."""
    (batch, states), steps = observations.shape[:2], actions.shape[1]
    embedding = model.embed(task_ids)

    def values(latents: torch.Tensor, *, imagined: bool) -> torch.Tensor:
        rows = embedding.repeat_interleave(latents.shape[1], dim=0)
        length = latents.shape[1] if imagined else 1
        prediction = model.predict(latents.flatten(0, 1), rows, length, root=not imagined)
        return model.value_support.decode(prediction.value_logits).unflatten(1, (batch, -1))

    real_latents = model.represent(
        observations.flatten(0, 1),
        task_ids.repeat_interleave(states),
        embedding.repeat_interleave(states, dim=0),
    ).unflatten(0, (batch, states))
    latents = [real_latents[:, 0]]
    rewards = []
    for k in range(steps):
        logits = model.reward(latents[-1], actions[:, k], embedding)
        rewards.append(model.reward_support.decode(logits))
        latents.append(model.dynamics(latents[-1], actions[:, k], embedding))
    unrolled = torch.stack(latents, dim=1)
    return Imagined(
        latents=unrolled,
        rewards=torch.stack(rewards, dim=1),
        head_values=values(unrolled, imagined=True),
        real_latents=real_latents,
        real_values=values(real_latents, imagined=False).mean(dim=0),
    )


def task_means(
    values: torch.Tensor, mask: torch.Tensor, task_ids: torch.Tensor, num_tasks: int
) -> torch.Tensor:
    """Mean over the rows [B, S] of each task where mask [B, S] is 1; [T, S], NaN without any."""
    total, count = values.new_zeros(2, num_tasks, values.shape[1], dtype=torch.float64)
    total.index_add_(0, task_ids, (values * mask).double())
    count.index_add_(0, task_ids, mask.double())
    return total / count
