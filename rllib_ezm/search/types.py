"""What every search shares: the model it calls, its roots, its result, and who asks for it.

Legend: B roots, M rows of one model call, N root candidates, A padded action dim, H latent dim,
F width of the features.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

from rllib_ezm.search.settings import SearchSettings


class RootOutput(NamedTuple):
    """The model at the root: latent [B, H], value [B], policy mean and bounded log_std [B, A]."""

    latent: torch.Tensor
    value: torch.Tensor
    mean: torch.Tensor
    log_std: torch.Tensor


class StepOutput(NamedTuple):
    """The model after an action: latent [M, H], what `policy` needs [M, F], reward, value [M]."""

    latent: torch.Tensor
    features: torch.Tensor
    reward: torch.Tensor
    value: torch.Tensor


class SearchModel(Protocol):
    """What a search needs of a world model; rows are independent of each other."""

    def step(
        self, latent: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor
    ) -> StepOutput:
        """Apply actions [M, A] to latents [M, H] of tasks [M]; values are scalars, as used."""
        ...

    def policy(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Policy mean and bounded log_std [M, A] at features [M, F]."""
        ...


class RootInference(NamedTuple):
    """Encoded observations: the search's `root`, and the variance of the value heads [B]."""

    root: RootOutput
    value_variance: torch.Tensor


class Plan(NamedTuple):
    """Result of planning: `action` [B, A] in [-1, 1], `value` [B] (root value of the search).

    `candidates` [B, N, A] and `weights` [B, N] (the improved policy over them; softmax(g), eq. 5,
    of the Gumbel search) are None without search, and of a search that has none.
    """

    action: torch.Tensor
    value: torch.Tensor
    candidates: torch.Tensor | None
    weights: torch.Tensor | None


class Planner(Protocol):
    """What acting and reanalyzing need: roots from observations, plans from roots."""

    in_recordings: bool

    def refresh(self) -> None:
        """Take over the model's weights of this moment; the other calls do so by themselves.

        But not within a compiled graph.
        """
        ...

    def root(self, observations: torch.Tensor, task_ids: torch.Tensor) -> RootInference:
        """Encode raw padded observations [B, D] of tasks [B]."""
        ...

    def plan(
        self,
        root: RootOutput,
        task_ids: torch.Tensor,
        settings: SearchSettings | None,
        *,
        replayed_action: torch.Tensor | None = None,
    ) -> Plan:
        """Search from encoded roots, or act with the policy mean if `settings` is None.

        Args:
            root: `RootInference.root` of B roots.
            task_ids: [B].
            settings: Sizes and constants of the search.
            replayed_action: [B, A], a candidate besides those that are sampled.
        """
        ...
