"""A random world model, and random roots, masks and noise for its search."""

from __future__ import annotations

from typing import Any

import torch

from rllib_ezm.search import RootOutput, SearchNoise, SearchSettings, StepOutput, draw_noise

SIZES = [(32, 16), (16, 8), (8, 4), (7, 5), (50, 16), (3, 8), (1, 1), (64, 4)]
"""Pairs of num_simulations and num_candidates."""
LATENT_DIM, ACTION_DIM, NUM_TASKS = 6, 4, 3


class RandomModel:
    """A random one-layer world model that records the actions of its calls."""

    def __init__(self, seed: int, value_scale: float = 1.0, dtype: torch.dtype = torch.float64):
        generator = torch.Generator().manual_seed(seed)

        def weight(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.dynamics = weight(LATENT_DIM + ACTION_DIM, LATENT_DIM)
        self.tasks = weight(NUM_TASKS, LATENT_DIM)
        self.reward = weight(LATENT_DIM + ACTION_DIM)
        self.value = weight(LATENT_DIM) * value_scale
        self.policy_weight = weight(LATENT_DIM, 2 * ACTION_DIM) * 0.2
        self.roots = weight(512, LATENT_DIM)
        self.calls: list[torch.Tensor] = []

    def to(self, device: str) -> RandomModel:
        for name, member in vars(self).items():
            if isinstance(member, torch.Tensor):
                setattr(self, name, member.to(device))
        return self

    def policy(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, raw = (features @ self.policy_weight).chunk(2, dim=-1)
        return mean, torch.tanh(raw) * 0.5 - 1.2

    def actions(self, batch: int) -> torch.Tensor:
        """Actions into nodes 1, 2, ... of a batched search [B, S, A]."""
        return torch.cat([call.unflatten(0, (batch, -1)) for call in self.calls], dim=1)

    def root(self, batch: int) -> RootOutput:
        latent = torch.tanh(self.roots[:batch])
        return RootOutput(latent, latent @ self.value, *self.policy(latent))

    def step(
        self, latent: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor
    ) -> StepOutput:
        self.calls.append(action)
        inputs = torch.cat([latent, action], dim=-1)
        new_latent = torch.tanh(inputs @ self.dynamics + self.tasks[task_ids])
        return StepOutput(new_latent, new_latent, inputs @ self.reward, new_latent @ self.value)


def masks(batch: int, seed: int) -> torch.Tensor:
    """Random masks with at least two real dimensions."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, ACTION_DIM, generator=generator) < 0.6
    mask[:, :2] = True
    return mask.to(torch.float64)


def sized(num_simulations: int, num_candidates: int, **changes: Any) -> SearchSettings:
    changes.setdefault("policy_candidates", min(4, num_candidates))
    return SearchSettings(num_simulations=num_simulations, num_candidates=num_candidates, **changes)


def inputs(
    model: RandomModel, batch: int, seed: int, search: SearchSettings
) -> tuple[RootOutput, torch.Tensor, torch.Tensor, SearchNoise]:
    generator = torch.Generator().manual_seed(seed)
    task_ids = torch.randint(NUM_TASKS, (batch,), generator=generator)
    noise = draw_noise(batch, ACTION_DIM, search, "cpu", torch.float64, generator)
    return model.root(batch), task_ids, masks(batch, seed), noise
