"""Round-synchronous Gumbel search over sampled actions: the public call of the search.

Legend: B roots, N root candidates, S simulations, A padded action dim, H latent dim, v visits of
one round.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from rllib_ezm.search.halving import keep_best, num_expandable_nodes, sequential_halving_schedule
from rllib_ezm.search.refinement import refine
from rllib_ezm.search.sampling import (
    Candidates,
    SearchNoise,
    draw_noise,
    num_inner_actions,
    sample_actions,
    sample_child,
    with_prior,
)
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
from rllib_ezm.search.types import RootOutput, SearchModel, StepOutput


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


class CandidateScores(NamedTuple):
    """Of every candidate: `scores` g(a), completed `q_values` and `visit_counts`, each [B, N]."""

    scores: torch.Tensor
    q_values: torch.Tensor
    visit_counts: torch.Tensor


class Leaves(NamedTuple):
    """New nodes, before the model is called.

    Attributes:
        leaf: Their numbers [B, v].
        path: Nodes from the root's child to the parent, padded with 0 [B, v, L].
        latent: Latents of the parents [B, v, H].
        action: Actions into the new nodes [B, v, A].
    """

    leaf: torch.Tensor
    path: torch.Tensor
    latent: torch.Tensor
    action: torch.Tensor


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

    Returns:
        The best action, root value and everything behind them; masked dimensions are exactly 0.

    Raises:
        ValueError: If a shape does not fit, or both `noise` and `generator` are given.

    Source: eqs. 2-5, arXiv:2603.01452.
    """
    root = in_float32_at_least(root)
    noise = _given_or_drawn(noise, generator, root, settings)
    _check_shapes(root, task_ids, action_mask, settings, noise, replayed_action)
    actions = sample_actions(root, action_mask, settings, noise, replayed_action)
    if settings.refined_candidates:
        actions = refine(model, root, task_ids, action_mask, settings, actions)
    candidates = with_prior(root, action_mask, settings, noise, actions)
    tree = start_tree(root, settings)
    survivors = candidates.first_score.argsort(dim=-1, descending=True, stable=True)
    rounds = sequential_halving_schedule(settings.num_simulations, settings.num_candidates)
    num_nodes = 1
    for depth, (num_active, num_visits) in enumerate(rounds):
        if num_active < survivors.shape[1]:
            scores = score_candidates(tree, candidates, settings).scores
            survivors = keep_best(scores, survivors, num_active)
        arms = survivors[:, :num_visits]
        nodes = slice(num_nodes, num_nodes + num_visits)
        if depth == 0:
            leaves = open_candidates(tree, arms, nodes, candidates)
        else:
            leaves = open_children(model, tree, arms, nodes, depth, noise, action_mask, settings)
        step = evaluate_leaves(model, leaves, task_ids)
        store_leaves(tree, nodes, step, expandable=depth < len(rounds) - 1)
        backup(tree, leaves.path, leaves.leaf, tree.raw_value[:, nodes], settings.discount)
        num_nodes = nodes.stop
    return choose_action(tree, candidates, survivors, settings)


def in_float32_at_least(root: RootOutput) -> RootOutput:
    """The root with the numbers that the statistics are made of in fp32, or as they are."""
    dtype = torch.promote_types(root.value.dtype, torch.float32)
    return root._replace(
        value=root.value.to(dtype), mean=root.mean.to(dtype), log_std=root.log_std.to(dtype)
    )


def start_tree(root: RootOutput, settings: SearchSettings) -> Tree:
    """The trees of B roots, with room for all nodes of the search."""
    sizes = settings.num_simulations, settings.num_candidates
    return allocate_tree(
        root.latent,
        root.value,
        settings.num_candidates,
        1 + settings.num_simulations,
        num_expandable_nodes(*sizes),
    )


def open_candidates(tree: Tree, arms: torch.Tensor, nodes: slice, candidates: Candidates) -> Leaves:
    """Make new nodes of root candidates [B, v]."""
    leaf = _numbers(nodes, arms)
    path = leaf.new_empty((*leaf.shape, 0))
    latent = tree.latents[:, :1].expand(-1, arms.shape[1], -1)
    tree.root_children.scatter_(1, arms, leaf)
    return Leaves(leaf, path, latent, candidates.actions[_tree_rows(arms), arms])


def open_children(
    model: SearchModel,
    tree: Tree,
    arms: torch.Tensor,
    nodes: slice,
    depth: int,
    noise: SearchNoise,
    action_mask: torch.Tensor,
    settings: SearchSettings,
) -> Leaves:
    """Walk down from visited candidates [B, v], `depth` nodes at most, and open a child there."""
    leaf, rows = _numbers(nodes, arms), _tree_rows(arms)
    start = tree.root_children.gather(1, arms)
    path, parent, slot = descend(tree, start, depth, scoring_of(settings))
    # Nodes are numbered from 1, and those of the first round have no drawn action.
    first_inner = 1 + settings.num_simulations - noise.children.shape[1]
    drawn = noise.children[:, nodes.start - first_inner : nodes.stop - first_inner]
    action = sample_child(model, tree.features[rows, parent], slot, drawn, action_mask, settings)
    tree.children[rows, parent, slot] = leaf
    return Leaves(leaf, path, tree.latents[rows, parent], action)


def evaluate_leaves(model: SearchModel, leaves: Leaves, task_ids: torch.Tensor) -> StepOutput:
    """Call the model at all new nodes at once [B * v]."""
    return model.step(
        leaves.latent.flatten(0, 1),
        leaves.action.flatten(0, 1),
        task_ids.unsqueeze(-1).expand_as(leaves.leaf).flatten(),
    )


def store_leaves(tree: Tree, nodes: slice, step: StepOutput, *, expandable: bool) -> None:
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


def scoring_of(settings: SearchSettings) -> Scoring:
    """The constants of the scores."""
    return Scoring(settings.discount, settings.c_visit, settings.c_scale, settings.minmax_delta)


def score_candidates(
    tree: Tree, candidates: Candidates, settings: SearchSettings
) -> CandidateScores:
    """`g(a) = first score + sigma(completedQ)` of every candidate (eqs. 2-4)."""
    q_values, sigma_q, visit_counts = evaluate_root_children(
        tree, candidates.prior, scoring_of(settings)
    )
    return CandidateScores(candidates.first_score + sigma_q, q_values, visit_counts)


def choose_action(
    tree: Tree, candidates: Candidates, survivors: torch.Tensor, settings: SearchSettings
) -> SearchOutput:
    """The best of the survivors [B, m], and everything that a finished search found."""
    scores, q_values, visit_counts = score_candidates(tree, candidates, settings)
    winner = survivors.gather(1, scores.gather(1, survivors).argmax(-1, keepdim=True))
    return SearchOutput(
        action=candidates.actions[_tree_rows(winner), winner].squeeze(1),
        value=finish_root(tree),
        candidates=candidates.actions,
        scores=scores,
        visit_counts=visit_counts,
        q_values=q_values,
        tree=tree,
    )


def _numbers(nodes: slice, arms: torch.Tensor) -> torch.Tensor:
    """The numbers of new nodes in every tree [B, v]."""
    return torch.arange(nodes.start, nodes.stop, device=arms.device).expand_as(arms)


def _tree_rows(index: torch.Tensor) -> torch.Tensor:
    """Row numbers [B, 1] that pair each entry of an index [B, ...] with its own tree."""
    return torch.arange(index.shape[0], device=index.device).unsqueeze(-1)


def _given_or_drawn(
    noise: SearchNoise | None,
    generator: torch.Generator | None,
    root: RootOutput,
    settings: SearchSettings,
) -> SearchNoise:
    if noise is None:
        (batch, action_dim), mean = root.mean.shape, root.mean
        return draw_noise(batch, action_dim, settings, mean.device, mean.dtype, generator)
    if generator is not None:
        raise ValueError("give noise or generator, not both: given noise needs no generator")
    return noise


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
        "noise.children": (noise.children, (batch, num_inner_actions(settings), action_dim)),
        "noise.gumbel": (noise.gumbel, (batch, num_candidates)),
    }
    if replayed_action is not None:
        expected["replayed_action"] = (replayed_action, (batch, action_dim))
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, pass {shape}")
