"""The sampled actions of the Gumbel search: its randomness, root candidates, children.

Legend: B roots, N root candidates, S simulations, A padded action dim, v visits of one round.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from rllib_ezm.models.policy_distribution import sample_squashed, squashed_log_prob
from rllib_ezm.search.halving import sequential_halving_schedule
from rllib_ezm.search.settings import SearchSettings
from rllib_ezm.search.types import RootOutput, SearchModel


class SearchNoise(NamedTuple):
    """All randomness of a search.

    Attributes:
        root: Standard normal draws of the root candidates [B, N, A].
        children: Standard normal draw of each later node's action, in the order of the visits
            after the first round [B, S - S_1, A], S_1 the visits of the first round.
        gumbel: Standard Gumbel draws [B, N], or zeros.
    """

    root: torch.Tensor
    children: torch.Tensor
    gumbel: torch.Tensor


class Candidates(NamedTuple):
    """The root's actions.

    Attributes:
        actions: [B, N, A].
        prior: pi over them [B, N].
        first_score: Score before any visit, Gumbel noise + log pi up to a constant [B, N].
    """

    actions: torch.Tensor
    prior: torch.Tensor
    first_score: torch.Tensor


def draw_noise(
    batch: int,
    action_dim: int,
    settings: SearchSettings,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> SearchNoise:
    """Draw the randomness of one search over `batch` roots; shapes as in `SearchNoise`."""
    num_candidates = settings.num_candidates

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=dtype)

    root = normal(batch, num_candidates, action_dim)
    children = normal(batch, num_inner_actions(settings), action_dim)
    gumbel = torch.zeros(batch, num_candidates, device=device, dtype=dtype)
    if settings.use_gumbel_noise:
        gumbel = -gumbel.exponential_(generator=generator).log()
    return SearchNoise(root, children, gumbel)


def num_inner_actions(settings: SearchSettings) -> int:
    """Actions sampled below the root: one per visit after the first round."""
    rounds = sequential_halving_schedule(settings.num_simulations, settings.num_candidates)
    return settings.num_simulations - rounds[0].num_visits


def sample_actions(
    root: RootOutput,
    action_mask: torch.Tensor,
    settings: SearchSettings,
    noise: SearchNoise,
    replayed_action: torch.Tensor | None = None,
) -> torch.Tensor:
    """The root's actions [B, N, A] from its policy, the last of them replaced by a replayed one."""
    mean, log_std, mask = (x.unsqueeze(1) for x in (root.mean, root.log_std, action_mask))
    scale = _root_std_scale(noise.root, settings)
    actions = sample_squashed(mean, log_std, noise.root, scale, mask)
    if replayed_action is not None:
        actions[:, -1] = replayed_action * action_mask
    return actions


def with_prior(
    root: RootOutput,
    action_mask: torch.Tensor,
    settings: SearchSettings,
    noise: SearchNoise,
    actions: torch.Tensor,
) -> Candidates:
    """The candidates of actions [B, N, A]: their prior, and scores before any visit."""
    mean, log_std, mask = (x.unsqueeze(1) for x in (root.mean, root.log_std, action_mask))
    if settings.root_prior == "policy":
        logits = squashed_log_prob(actions, mean, log_std, mask)
    else:
        logits = actions.new_zeros(actions.shape[:2])
    return Candidates(actions, torch.softmax(logits, dim=-1), noise.gumbel + logits)


def sample_child(
    model: SearchModel,
    features: torch.Tensor,
    slot: torch.Tensor,
    noise: torch.Tensor,
    action_mask: torch.Tensor,
    settings: SearchSettings,
) -> torch.Tensor:
    """Sample the action of one child [B, v] of parents with features [B, v, F]; noise [B, v, A]."""
    mean, log_std = (x.view(noise.shape) for x in model.policy(features.flatten(0, 1)))
    wider = settings.wide_std_factor if settings.wide_candidates else 1.0
    scale = 1.0 + (wider - 1.0) * slot.unsqueeze(-1)
    return sample_squashed(mean, log_std, noise, scale, action_mask.unsqueeze(1))


def _root_std_scale(noise: torch.Tensor, settings: SearchSettings) -> torch.Tensor:
    """Inflation of the deviation of each root candidate [N, 1]."""
    factor = settings.wide_std_factor if settings.wide_candidates else 1.0
    scale = noise.new_full((settings.num_candidates, 1), factor)
    scale[: settings.policy_candidates] = 1.0
    return scale
