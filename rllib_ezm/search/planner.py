"""The world model as the search sees it: root inference, one-step inference, planning.

Value reduction, value clipping and numeric precision are decided here, so that the tree search
itself stays pure. Shapes: `B` roots, `M` rows, `V` value heads, `N` candidates, `A` actions.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch

from rllib_ezm.models.policy_distribution import mode_squashed
from rllib_ezm.models.world_model import WorldModel
from rllib_ezm.search.gumbel import (
    RootOutput,
    SearchNoise,
    SearchSettings,
    StepOutput,
    gumbel_search,
)

VALUE_REDUCTIONS = ("mean", "min2")
PRECISIONS = ("float32", "bfloat16", "float16", "auto")


class Plan(NamedTuple):
    """Result of planning: `action` [B, A], `value` [B] (root value of the search).

    `candidates` [B, N, A] and `weights` [B, N] (improved policy softmax(g), eq. 5) are None without
    search.
    """

    action: torch.Tensor
    value: torch.Tensor
    candidates: torch.Tensor | None
    weights: torch.Tensor | None


class RootInference(NamedTuple):
    """Encoded observations: the search's `root`, and the variance of the value heads [B]."""

    root: RootOutput
    value_variance: torch.Tensor


@functools.cache
def has_native_bfloat16(device_type: str) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 on this machine."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device_type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in checks)


def autocast(device_type: str, precision: str) -> AbstractContextManager[object]:
    """Autocast context for a precision name; no context for float32.

    "auto" is bfloat16 where the device multiplies it natively, else float32.
    """
    if precision == "auto":
        precision = "bfloat16" if has_native_bfloat16(device_type) else "float32"
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device_type, dtype=getattr(torch, precision))


def reduce_values(
    values: torch.Tensor, reduction: str, *, clip_min: float | None = None
) -> torch.Tensor:
    """Reduce decoded head values [V, M] -> [M].

    Args:
        values: Decoded values of the V heads.
        reduction: "mean" over heads, or "min2": minimum of two heads drawn at random once a call.
        clip_min: Lower bound applied to each head first; None for no bound.

    Raises:
        ValueError: If `reduction` is unknown.
    """
    if reduction not in VALUE_REDUCTIONS:
        raise ValueError(f"value_reduction {reduction!r} is unknown; use one of {VALUE_REDUCTIONS}")
    if clip_min is not None:
        values = values.clamp(min=clip_min)
    if reduction == "mean" or values.shape[0] == 1:
        return values.mean(dim=0)
    pair = torch.randperm(values.shape[0])[:2]
    return torch.minimum(values[pair[0]], values[pair[1]])


class Planner:
    """Plans with a world model; every call runs without gradients.

    Args:
        model: The world model. It must be in eval mode when planning.
        action_mask: [T, A], 1 for the real action dimensions of each task.
        value_reduction: See `reduce_values`.
        value_clip_min: Lower bound of predicted values, or None.
        precision: "float32", or "bfloat16" / "float16" for autocast, or "auto", see `autocast`.
    """

    def __init__(
        self,
        model: WorldModel,
        action_mask: torch.Tensor,
        *,
        value_reduction: str = "min2",
        value_clip_min: float | None = None,
        precision: str = "float32",
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r} is unknown; use one of {PRECISIONS}")
        self.model = model
        self.action_mask = action_mask
        self.value_reduction = value_reduction
        self.value_clip_min = value_clip_min
        self.precision = precision

    def _reduce(self, value_logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = self.model.value_support.decode(value_logits)
        reduced = reduce_values(values, self.value_reduction, clip_min=self.value_clip_min)
        return reduced, values

    @torch.no_grad()
    def root(self, observations: torch.Tensor, task_ids: torch.Tensor) -> RootInference:
        """Encode raw padded observations [B, D] of tasks [B]."""
        with autocast(observations.device.type, self.precision):
            embedding = self.model.embed(task_ids)
            latent = self.model.represent(observations, task_ids, embedding)
            prediction = self.model.predict(latent, embedding)
        value, per_head = self._reduce(prediction.value_logits)
        variance = per_head.var(dim=0) if per_head.shape[0] > 1 else torch.zeros_like(value)
        return RootInference(
            RootOutput(latent.float(), value, prediction.mean, prediction.log_std), variance
        )

    @torch.no_grad()
    def step(
        self, latent: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor
    ) -> StepOutput:
        """One imagined step from latents [M, H] with actions [M, A] (`SearchModel`)."""
        with autocast(latent.device.type, self.precision):
            embedding = self.model.embed(task_ids)
            reward_logits = self.model.reward(latent, action, embedding)
            next_latent = self.model.dynamics(latent, action, embedding)
            prediction = self.model.predict(next_latent, embedding)
        value, _ = self._reduce(prediction.value_logits)
        reward = self.model.reward_support.decode(reward_logits)
        return StepOutput(next_latent.float(), reward, value, prediction.mean, prediction.log_std)

    @torch.no_grad()
    def plan(
        self,
        root: RootOutput,
        task_ids: torch.Tensor,
        settings: SearchSettings | None,
        *,
        noise: SearchNoise | None = None,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """Search from encoded roots, or act with the policy mean if `settings` is None."""
        mask = self.action_mask.to(task_ids.device)[task_ids]
        if settings is None:
            return Plan(mode_squashed(root.mean, mask), root.value, None, None)
        result = gumbel_search(
            self, root, task_ids, mask, settings, noise=noise, generator=generator
        )
        weights = torch.softmax(result.scores, dim=-1)
        return Plan(result.action, result.value, result.candidates, weights)
