"""Round-synchronous Gumbel search over sampled actions: the public call of the search.

Legend: B roots, N root candidates, S simulations, A padded action dim, H latent dim, M rows of one
model call, P nodes that can get children (see `num_expandable_nodes`).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

from rllib_ezm.models.policy_distribution import sample_squashed, squashed_log_prob
from rllib_ezm.search.halving import keep_best, num_expandable_nodes, sequential_halving_schedule
from rllib_ezm.search.settings import SearchSettings
from rllib_ezm.search.tree import (
    Scoring,
    Tree,
    allocate_tree,
    backup,
    descend,
    evaluate_root_children,
    finish_root,
)


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
    """What the search needs of a world model; rows are independent of each other."""

    def step(
        self, latent: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor
    ) -> StepOutput:
        """Apply actions [M, A] to latents [M, H] of tasks [M]; values are scalars, as used."""
        ...

    def policy(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Policy mean and bounded log_std [M, A] at features [M, F] of the nodes to be opened."""
        ...


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


class SearchOutput(NamedTuple):
    """What a search found.

    Attributes:
        action: The best action [B, A].
        value: Root value, the mean return over the visits [B].
        candidates: The root actions [B, N, A].
        scores: Final g(a) of every candidate [B, N].
        visit_counts: Visits of every candidate [B, N].
        q_values: Completed Q of every candidate [B, N].
        tree: The trees themselves.
    """

    action: torch.Tensor
    value: torch.Tensor
    candidates: torch.Tensor
    scores: torch.Tensor
    visit_counts: torch.Tensor
    q_values: torch.Tensor
    tree: Tree


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
    children = normal(batch, _num_inner_actions(settings), action_dim)
    gumbel = torch.zeros(batch, num_candidates, device=device, dtype=dtype)
    if settings.use_gumbel_noise:
        gumbel = -gumbel.exponential_(generator=generator).log()
    return SearchNoise(root, children, gumbel)


@torch.no_grad()
def gumbel_search(
    model: SearchModel,
    root: RootOutput,
    task_ids: torch.Tensor,
    action_mask: torch.Tensor,
    settings: SearchSettings,
    noise: SearchNoise | None = None,
    generator: torch.Generator | None = None,
    replayed_action: torch.Tensor | None = None,
    one_by_one: bool = False,
) -> SearchOutput:
    """Search B roots at once; one model call per round of sequential halving.

    All visits of a round are selected with the statistics of the round's start and lie in
    different sub-trees; backups and the min-max range follow when all leaves are evaluated.
    Statistics are kept in fp32 at least. Nothing is read back to the host.

    Args:
        model: The world model.
        root: Its output at the roots.
        task_ids: Task of each root [B].
        action_mask: 1 for real, 0 for padded action dimensions [B, A].
        settings: Sizes and constants.
        noise: The randomness; drawn with `generator` if None.
        generator: Random generator on the roots' device.
        replayed_action: [B, A], takes the place of the last candidate.
        one_by_one: Evaluate one leaf per root and model call, and update all statistics after
            each: S calls, the order of the released code. For comparison.

    Returns:
        The best action, root value and everything behind them; masked dimensions are exactly 0.

    Raises:
        ValueError: If a shape does not fit, or both `noise` and `generator` are given.

    Source: eqs. 2-5, arXiv:2603.01452.
    """
    batch, action_dim = root.mean.shape
    dtype = torch.promote_types(root.value.dtype, torch.float32)
    root = root._replace(
        value=root.value.to(dtype), mean=root.mean.to(dtype), log_std=root.log_std.to(dtype)
    )
    if noise is None:
        noise = draw_noise(batch, action_dim, settings, root.value.device, dtype, generator)
    elif generator is not None:
        raise ValueError("give noise or generator, not both: given noise needs no generator")
    _check_shapes(root, task_ids, action_mask, settings, noise, replayed_action)

    candidates, prior_logits = _root_candidates(
        root, action_mask, settings, noise.root, replayed_action
    )
    first_score = noise.gumbel + prior_logits
    prior = torch.softmax(prior_logits, dim=-1)
    survivors = first_score.argsort(dim=-1, descending=True, stable=True)
    scoring = Scoring(settings.discount, settings.c_visit, settings.c_scale, settings.minmax_delta)
    num_nodes = 1
    tree = allocate_tree(
        root.latent,
        root.value,
        settings.num_candidates,
        num_nodes + settings.num_simulations,
        num_expandable_nodes(settings.num_simulations, settings.num_candidates),
    )
    rounds = sequential_halving_schedule(settings.num_simulations, settings.num_candidates)
    first_inner = num_nodes + rounds[0].num_visits
    rows = _tree_rows(survivors)

    for depth, (num_active, num_visits) in enumerate(rounds):
        if num_active < survivors.shape[1]:
            scores = first_score + evaluate_root_children(tree, prior, scoring)[1]
            survivors = keep_best(scores, survivors, num_active)
        calls = survivors[:, :num_visits].split(1 if one_by_one else num_visits, dim=1)
        for arms in calls:
            nodes = slice(num_nodes, num_nodes + arms.shape[1])
            num_nodes = nodes.stop
            leaf = torch.arange(nodes.start, nodes.stop, device=arms.device).expand_as(arms)
            if depth == 0:
                path = leaf.new_empty((*leaf.shape, 0))
                latent = tree.latents[:, :1].expand(-1, arms.shape[1], -1)
                action = candidates[rows, arms]
                tree.root_children.scatter_(1, arms, leaf)
            else:
                path, parent, slot = descend(
                    tree, tree.root_children.gather(1, arms), depth, scoring
                )
                latent = tree.latents[rows, parent]
                drawn = noise.children[:, nodes.start - first_inner : nodes.stop - first_inner]
                features = tree.features[rows, parent]
                action = _child_action(model, features, slot, drawn, action_mask, settings)
                tree.children[rows, parent, slot] = leaf
            step = model.step(
                latent.flatten(0, 1),
                action.flatten(0, 1),
                task_ids.unsqueeze(-1).expand_as(arms).flatten(),
            )
            _store_leaves(tree, nodes, step, expandable=depth < len(rounds) - 1)
            backup(tree, path, leaf, tree.raw_value[:, nodes], settings.discount)

    q_values, sigma_q, visit_counts = evaluate_root_children(tree, prior, scoring)
    scores = first_score + sigma_q
    winner = survivors.gather(1, scores.gather(1, survivors).argmax(-1, keepdim=True))
    return SearchOutput(
        action=candidates[rows, winner].squeeze(1),
        value=finish_root(tree),
        candidates=candidates,
        scores=scores,
        visit_counts=visit_counts,
        q_values=q_values,
        tree=tree,
    )


def _store_leaves(tree: Tree, nodes: slice, step: StepOutput, *, expandable: bool) -> None:
    """Enter the model's outputs of new nodes [B * v]; latents only where children may follow."""
    per_root = (len(tree.visits), -1)
    tree.reward[:, nodes] = step.reward.view(per_root)
    tree.raw_value[:, nodes] = step.value.view(per_root)
    if not expandable:
        return
    if nodes.start == 1:
        shape = (*tree.latents.shape[:2], step.features.shape[-1])
        tree.features = step.features.new_empty(shape)
    tree.latents[:, nodes] = step.latent.view(*per_root, step.latent.shape[-1])
    tree.features[:, nodes] = step.features.view(*per_root, step.features.shape[-1])


def _tree_rows(index: torch.Tensor) -> torch.Tensor:
    """Row numbers [B, 1] that pair each entry of an index [B, ...] with its own tree."""
    return torch.arange(index.shape[0], device=index.device).unsqueeze(-1)


def _root_candidates(
    root: RootOutput,
    action_mask: torch.Tensor,
    settings: SearchSettings,
    noise: torch.Tensor,
    replayed_action: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The candidates [B, N, A] and their prior logits [B, N]."""
    mean, log_std, mask = (
        root.mean.unsqueeze(1),
        root.log_std.unsqueeze(1),
        action_mask.unsqueeze(1),
    )
    scale = _root_std_scale(noise, settings)
    candidates = sample_squashed(mean, log_std, noise, scale, mask)
    if replayed_action is not None:
        candidates[:, -1] = replayed_action * action_mask
    if settings.root_prior == "policy":
        return candidates, squashed_log_prob(candidates, mean, log_std, mask)
    return candidates, candidates.new_zeros(candidates.shape[:2])


def _child_action(
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


def _num_inner_actions(settings: SearchSettings) -> int:
    """Actions sampled below the root: one per visit after the first round."""
    rounds = sequential_halving_schedule(settings.num_simulations, settings.num_candidates)
    return settings.num_simulations - rounds[0].num_visits


def _check_shapes(
    root: RootOutput,
    task_ids: torch.Tensor,
    action_mask: torch.Tensor,
    settings: SearchSettings,
    noise: SearchNoise,
    replayed_action: torch.Tensor | None,
) -> None:
    """Raise a ValueError that names the first argument of a wrong shape."""
    batch, action_dim = root.mean.shape
    num_candidates = settings.num_candidates
    expected = {
        "root.latent": (root.latent, (batch, root.latent.shape[-1])),
        "root.value": (root.value, (batch,)),
        "root.log_std": (root.log_std, (batch, action_dim)),
        "task_ids": (task_ids, (batch,)),
        "action_mask": (action_mask, (batch, action_dim)),
        "noise.root": (noise.root, (batch, num_candidates, action_dim)),
        "noise.children": (noise.children, (batch, _num_inner_actions(settings), action_dim)),
        "noise.gumbel": (noise.gumbel, (batch, num_candidates)),
    }
    if replayed_action is not None:
        expected["replayed_action"] = (replayed_action, (batch, action_dim))
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, pass {shape}")
