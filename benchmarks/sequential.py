"""The Gumbel search in the order of the released code: one simulation at a time.

One leaf per root and model call, and all statistics updated after each: S calls, where
`gumbel_search` makes one a round. The parts are those of the package; the order is the reference's.
"""

from __future__ import annotations

import torch

from rllib_ezm.search import (
    RootOutput,
    SearchModel,
    SearchNoise,
    SearchOutput,
    SearchSettings,
    sequential_halving_schedule,
)
from rllib_ezm.search.gumbel import (
    choose_action,
    evaluate_leaves,
    in_float32_at_least,
    open_candidates,
    open_children,
    score_candidates,
    start_tree,
    store_leaves,
)
from rllib_ezm.search.halving import keep_best
from rllib_ezm.search.sampling import sample_actions, with_prior
from rllib_ezm.search.tree import backup


@torch.no_grad()
def sequential_search(
    model: SearchModel,
    root: RootOutput,
    task_ids: torch.Tensor,
    action_mask: torch.Tensor,
    settings: SearchSettings,
    noise: SearchNoise,
    replayed_action: torch.Tensor | None = None,
) -> SearchOutput:
    """As `gumbel_search`, with S model calls of one row per root."""
    root = in_float32_at_least(root)
    actions = sample_actions(root, action_mask, settings, noise, replayed_action)
    candidates = with_prior(root, action_mask, settings, noise, actions)
    tree = start_tree(root, settings)
    survivors = candidates.first_score.argsort(dim=-1, descending=True, stable=True)
    rounds = sequential_halving_schedule(settings.num_simulations, settings.num_candidates)
    node = 1
    for depth, (num_active, num_visits) in enumerate(rounds):
        if num_active < survivors.shape[1]:
            scores = score_candidates(tree, candidates, settings).scores
            survivors = keep_best(scores, survivors, num_active)
        for arm in survivors[:, :num_visits].split(1, dim=1):
            nodes = slice(node, node + 1)
            if depth == 0:
                leaves = open_candidates(tree, arm, nodes, candidates)
            else:
                leaves = open_children(model, tree, arm, nodes, depth, noise, action_mask, settings)
            step = evaluate_leaves(model, leaves, task_ids)
            store_leaves(tree, nodes, step, expandable=depth < len(rounds) - 1)
            backup(tree, leaves.path, leaves.leaf, tree.raw_value[:, nodes], settings.discount)
            node += 1
    return choose_action(tree, candidates, survivors, settings)
