"""Acting as one computation from an environment's observation to its action, for export.

The observation is the task's own, flat; the normalizer, padding, mask and the scaling to the bounds
are inside. Shapes are static: one observation. Legend: D padded observation dim, A padded action
dim, N root candidates, S simulations.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from rllib_ezm.models.inference import FoldedModel, Heads
from rllib_ezm.models.policy_distribution import mode_squashed
from rllib_ezm.policy.policy import Policy
from rllib_ezm.search.gumbel import gumbel_search
from rllib_ezm.search.halving import sequential_halving_schedule
from rllib_ezm.search.planner import ModelInSearch, reduce_values
from rllib_ezm.search.sampling import SearchNoise, num_inner_actions
from rllib_ezm.search.settings import SearchSettings
from rllib_ezm.search.types import RootOutput


class Acting(nn.Module):
    """What every graph shares: from a task's own observation to the root, and back to its action.

    Args:
        policy: In float32.
        task_id: The task.
    """

    low: torch.Tensor
    span: torch.Tensor
    task_ids: torch.Tensor
    mask: torch.Tensor

    def __init__(self, policy: Policy, task_id: int) -> None:
        super().__init__()
        spaces = policy.description.tasks[task_id].spaces
        self.view = FoldedModel(policy.model)
        self.obs_dim, self.action_dim = spaces.obs_dim, spaces.action_dim
        self.padding = self.view.model.spec.obs_dim - spaces.obs_dim
        low, high = torch.tensor(spaces.action_low), torch.tensor(spaces.action_high)
        self.register_buffer("low", low)
        self.register_buffer("span", high - low)
        self.register_buffer("task_ids", torch.tensor([task_id]))
        self.register_buffer("mask", policy.action_mask[task_id : task_id + 1])

    def random_inputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs beside the observation, in their order."""
        return {}

    def root(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latent [1, H] and features [1, F] of an own observation [1, obs_dim]."""
        padded = nn.functional.pad(observation, (0, self.padding))
        latent = self.view.represent(padded, self.task_ids)
        return latent, self.view.features(latent, self.view.tasks(self.task_ids))

    def to_bounds(self, action: torch.Tensor) -> torch.Tensor:
        """Own action [1, action_dim] within its bounds of a padded one [1, A] in [-1, 1]."""
        own = action[:, : self.action_dim].clamp(-1.0, 1.0)
        return self.low + 0.5 * (own + 1.0) * self.span


class MeanGraph(Acting):
    """`observation` [1, obs_dim] -> `action` [1, action_dim], the policy's mean."""

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """See the class."""
        _, features = self.root(observation)
        mean, _ = self.view.policy(features, root=True)
        return self.to_bounds(mode_squashed(mean, self.mask))


class GivenHeads(ModelInSearch):
    """The model in a search, with the value heads of each call given."""

    heads: Iterator[torch.Tensor]

    def draw_heads(self) -> Heads:
        """The next ones."""
        return next(self.heads)


class SearchGraph(Acting):
    """`observation` [1, obs_dim] and random numbers -> `action` [1, action_dim] of the search.

    The random numbers are `root_noise` [1, N, A] and `child_noise` [1, S - S_1, A] (S_1 the visits
    of the first round), standard normal; and, where the search reads a random pair of more than two
    value heads, `heads` [C, 2], two different ones for each of the C calls of the model.

    Args:
        policy: In float32, with the Gumbel planner.
        task_id: The task.
        settings: Of the search.
    """

    def __init__(self, policy: Policy, task_id: int, settings: SearchSettings) -> None:
        super().__init__(policy, task_id)
        self.settings = settings
        self.reduction = policy.description.model["value_reduction"]
        self.clip_min = policy.description.model["value_clip_min"]
        self.draws = self.reduction == "random_pair" and self.view.num_value_heads > 2

    def random_inputs(self) -> dict[str, tuple[int, ...]]:
        """See the class."""
        settings, actions = self.settings, self.mask.shape[1]
        shapes: dict[str, tuple[int, ...]] = {
            "root_noise": (1, settings.num_candidates, actions),
            "child_noise": (1, num_inner_actions(settings), actions),
        }
        if self.draws:
            rounds = sequential_halving_schedule(settings.num_simulations, settings.num_candidates)
            shapes["heads"] = (1 + len(rounds), 2)
        return shapes

    def forward(
        self,
        observation: torch.Tensor,
        root_noise: torch.Tensor,
        child_noise: torch.Tensor,
        heads: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See the class."""
        view = self.view
        latent, features = self.root(observation)
        everything = tuple(range(view.num_value_heads))
        calls = iter(()) if heads is None else iter(heads)
        logits = torch.stack(view.value(features, everything, root=True))
        values = view.model.value_support.decode(logits)
        drawn = values[next(calls)] if self.draws else values
        value = reduce_values(drawn, self.reduction, clip_min=self.clip_min)
        root = RootOutput(latent, value, *view.policy(features, root=True))
        model = (GivenHeads if self.draws else ModelInSearch)(view, self.reduction, self.clip_min)
        if isinstance(model, GivenHeads):
            model.heads = calls
        noise = SearchNoise(root_noise, child_noise, root_noise.new_zeros(root_noise.shape[:2]))
        found = gumbel_search(model, root, self.task_ids, self.mask, self.settings, noise)
        return self.to_bounds(found.action)
