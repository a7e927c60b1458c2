"""The weights of a trained world model for more tasks, wider observations and wider actions.

A task owns the first dims of a padded row; the others are 0. So a layer that reads more dims gets
weights of 0 for them, and where a known task acts it adds products with 0 to what it summed before:
the outputs are the same numbers, up to the order in which a matrix product sums. What begins anew
is as in a new network; no random number is drawn.

Legend: D, A padded observation and action dims, E task-embedding dim, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from rllib_ezm.models.masks import prefix_mask

Weights = Mapping[str, torch.Tensor]

ACTION_READERS = ("reward_model.action_encoder.linear.weight",)
"""[out, A + E]: the action, then the task embedding."""

OBSERVATION_READERS = ("representation.0.linear.weight",)
"""[out, D + E]."""

ACTION_LAST_READERS = ("dynamics_model.mix.weight",)
"""[out, H + E + A]: the action comes last."""

ACTION_HEADS = (
    "value_policy_model.policy_head.output.weight",
    "value_policy_model.policy_head.output.bias",
)
"""[2 A, ...]: means, then raw log-deviations."""

UNSEEN_DIMS = {"normalizer.mean": 0.0, "normalizer.variance": 1.0, "normalizer.count": 0.0}
"""Statistics [D] -> their value before the first observation."""

MASK = "normalizer.observation_mask"
EMBEDDING = "task_embedding.weight"


@dataclass(frozen=True)
class Growth:
    """From the tasks of a trained model to those of a new one.

    Attributes:
        old_obs_dims: Observation dims of the trained model's tasks.
        old_action_dims: Their action dims.
        obs_dims: Observation dims of the new model's tasks.
        action_dims: Their action dims.
        source: For each new task its id in the trained model; None: it is not known there.
        relatives: For each new task the ids of trained tasks whose embeddings, in the mean, are
            where its own begins. Those of a known task are ignored.

    Raises:
        ValueError: The new model's padded dims are smaller.
    """

    old_obs_dims: Sequence[int]
    old_action_dims: Sequence[int]
    obs_dims: Sequence[int]
    action_dims: Sequence[int]
    source: Sequence[int | None]
    relatives: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        if self.more_obs < 0 or self.more_actions < 0:
            raise ValueError(
                "The new model is smaller: padded to "
                f"{max(self.obs_dims)} observation and {max(self.action_dims)} action dims instead "
                f"of {max(self.old_obs_dims)} and {max(self.old_action_dims)}."
            )

    @property
    def more_obs(self) -> int:
        """Padded observation dims that are added."""
        return max(self.obs_dims) - max(self.old_obs_dims)

    @property
    def more_actions(self) -> int:
        """Padded action dims that are added."""
        return max(self.action_dims) - max(self.old_action_dims)

    def weights(self, old: Weights) -> dict[str, torch.Tensor]:
        """The state of the new world model from that of the trained one.

        The new model needs `normalized_action_dim` of the trained one, or if that is None the
        trained one's padded action dim.
        """
        new = {name: tensor.clone() for name, tensor in old.items()}
        obs_dim, action_dim = max(self.old_obs_dims), max(self.old_action_dims)
        for name in OBSERVATION_READERS:
            new[name] = insert_zeros(old[name], obs_dim, self.more_obs, dim=1)
        for name in ACTION_READERS:
            new[name] = insert_zeros(old[name], action_dim, self.more_actions, dim=1)
        for name in ACTION_LAST_READERS:
            new[name] = insert_zeros(old[name], old[name].shape[1], self.more_actions, dim=1)
        for name in ACTION_HEADS:
            means = insert_zeros(old[name], action_dim, self.more_actions, dim=0)
            new[name] = insert_zeros(means, len(means), self.more_actions, dim=0)
        for name, value in UNSEEN_DIMS.items():
            new[name] = functional.pad(old[name], (0, self.more_obs), value=value)
        new[MASK] = prefix_mask(self.obs_dims).to(old[MASK])
        new[EMBEDDING] = self._embeddings(old[EMBEDDING])
        return new

    def per_task(self, old: torch.Tensor, unknown: float) -> torch.Tensor:
        """Rows [T, ...] of the new tasks from those of the trained ones, or a value."""
        new = old.new_full((len(self.source), *old.shape[1:]), unknown)
        for task, known in enumerate(self.source):
            if known is not None:
                new[task] = old[known]
        return new

    def _embeddings(self, old: torch.Tensor) -> torch.Tensor:
        """[T, E]; a known task keeps its row, which looks up as the same normalized embedding."""
        new = self.per_task(old, 0.0)
        used = old / old.norm(dim=-1, keepdim=True).clamp(min=1.0)
        for task, known in enumerate(self.source):
            if known is None:
                new[task] = used[list(self.relatives[task])].mean(dim=0)
        return new


def insert_zeros(x: torch.Tensor, at: int, width: int, dim: int) -> torch.Tensor:
    """`x` with `width` entries of 0 along `dim`, before the one at position `at`."""
    before, after = x.split([at, x.shape[dim] - at], dim=dim)
    shape = [*x.shape]
    shape[dim] = width
    return torch.cat([before, x.new_zeros(shape), after], dim=dim)
