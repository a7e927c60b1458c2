"""A batch of search trees as preallocated tensors: descent, expansion, backup.

All trees of a batch grow in step, one round of sequential halving at a time, so every shape below
is static and nothing is ever read back to the host. Legend: B trees, N root candidates, S
simulations, P nodes that can get children, A padded action dim, H latent dim, v visits a round.

Node 0 is the root and nodes are numbered in the order of their visits, so indices grow along every
path. As no node can have the root for a child, 0 also means "no such node".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

NUM_CHILDREN = 2
"""Children of a non-root node: one policy action and one wide action."""


@dataclass
class Tree:
    """Statistics of B trees with M = S + 1 nodes each.

    Attributes:
        visits: N(s), with the visit that created the node; 0 at the root before `finish_root`, so
            that "no such node" has no visits [B, M].
        value_sum: W(s), the sum of the returns that passed through the node [B, M].
        reward: r(s), predicted on the edge into the node; 0 at the root [B, M].
        raw_value: v(s), the value network's output [B, M].
        q: r(s) + discount * W(s) / N(s), the parent's Q of this node; any finite number where the
            node does not exist [B, M].
        root_children: Node of each root candidate, 0 while it is not visited [B, N].
        children: Node of each child, 0 while it is not expanded; row 0 stays 0 [B, P, 2].
        latents: Latent of every node that can get children [B, P, H].
        features: What the model's policy reads there, when a child is opened [B, P, F]; row 0, the
            root's, is not used.
        low: Smallest edge return seen in the tree, +inf before the first [B].
        high: Largest edge return seen in the tree, -inf before the first [B].
    """

    visits: torch.Tensor
    value_sum: torch.Tensor
    reward: torch.Tensor
    raw_value: torch.Tensor
    q: torch.Tensor
    root_children: torch.Tensor
    children: torch.Tensor
    latents: torch.Tensor
    features: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor


@dataclass(frozen=True)
class Scoring:
    """The numbers of `sigma(q) = (c_visit + max_b N(b)) * c_scale * norm(q)` and of `q` itself."""

    discount: float
    c_visit: float
    c_scale: float
    minmax_delta: float


def allocate_tree(
    latent: torch.Tensor,
    value: torch.Tensor,
    num_candidates: int,
    num_nodes: int,
    num_expandable: int,
) -> Tree:
    """Make B trees that hold only their root.

    Args:
        latent: Root latents [B, H].
        value: Raw root values v(root) [B]; their dtype is the dtype of all statistics.
        num_candidates: N.
        num_nodes: M = S + 1, root included.
        num_expandable: P, the number of nodes (the first P) that may get children.
    """
    batch = value.shape[0]
    statistics = value.new_zeros((5, batch, num_nodes))
    visits, value_sum, reward, raw_value, q = statistics.unbind(0)
    value_sum[:, 0] = value
    raw_value[:, 0] = value
    latents = latent.new_empty((batch, num_expandable, latent.shape[-1]))
    latents[:, 0] = latent

    def no_nodes(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.int64, device=value.device)

    return Tree(
        visits=visits,
        value_sum=value_sum,
        reward=reward,
        raw_value=raw_value,
        q=q,
        root_children=no_nodes(batch, num_candidates),
        children=no_nodes(batch, num_expandable, NUM_CHILDREN),
        latents=latents,
        features=latent.new_empty((batch, num_expandable, 0)),
        low=torch.full_like(value, float("inf")),
        high=torch.full_like(value, -float("inf")),
    )


def completed_q(
    raw_value: torch.Tensor,
    child_q: torch.Tensor,
    child_visits: torch.Tensor,
    prior: torch.Tensor | float,
) -> torch.Tensor:
    """Fill in the Q of unvisited children with the mixed value v_mix of their parent.

    `v_mix = (v + n * sum_visited(pi q) / sum_visited(pi)) / (1 + n)`, n the children's visits.

    Args:
        raw_value: v(s), the network's value of the parent [...].
        child_q: Q of each child, any finite number where unvisited [..., C].
        child_visits: N(b) of each child [..., C].
        prior: pi, up to a factor [..., C], or a number for a uniform one.

    Returns:
        Completed Q [..., C].

    Source: eq. 33, Gumbel MuZero (Danihelka et al. 2022).
    """
    visited = child_visits > 0
    weights = visited * prior
    num_visits = child_visits.sum(-1)
    weighted_q = (weights * child_q).sum(-1)
    # The clamp acts only where nothing is visited: weighted_q is 0 there.
    mean_q = weighted_q / weights.sum(-1).clamp_min(torch.finfo(child_q.dtype).tiny)
    v_mix = (raw_value + num_visits * mean_q) / (1.0 + num_visits)
    return torch.where(visited, child_q, v_mix.unsqueeze(-1))


def normalize(
    q: torch.Tensor, low: torch.Tensor, high: torch.Tensor, minmax_delta: float
) -> torch.Tensor:
    """`clip((q - low) / max(high - low, delta), 0, 1)`; 0 while the range is empty (low = +inf).

    Args:
        q: Q values [B, ...].
        low: Smallest return [B].
        high: Largest return [B].
        minmax_delta: Floor of the range, in units of return.
    """
    per_tree = (-1,) + (1,) * (q.dim() - 1)
    span = (high - low).clamp_min(minmax_delta)
    return ((q - low.view(per_tree)) / span.view(per_tree)).clamp(0.0, 1.0)


def sigma(
    tree: Tree, q: torch.Tensor, child_visits: torch.Tensor, scoring: Scoring
) -> torch.Tensor:
    """`sigma(q) = (c_visit + max_b N(b)) * c_scale * norm(q)` over children [B, ..., C]."""
    most_visits = child_visits.amax(-1, keepdim=True)
    scale = (scoring.c_visit + most_visits) * scoring.c_scale
    return scale * normalize(q, tree.low, tree.high, scoring.minmax_delta)


def evaluate_root_children(
    tree: Tree, prior: torch.Tensor, scoring: Scoring
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Completed Q, sigma of it and visits of the root candidates, each [B, N].

    Args:
        tree: The trees.
        prior: pi over the candidates, up to a factor [B, N].
        scoring: Constants of the scores.
    """
    child_q = tree.q.gather(1, tree.root_children)
    child_visits = tree.visits.gather(1, tree.root_children)
    q = completed_q(tree.raw_value[:, 0], child_q, child_visits, prior)
    return q, sigma(tree, q, child_visits, scoring), child_visits


def select_children(tree: Tree, scoring: Scoring) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose a child at every node, with the statistics of this moment.

    `argmax_b softmax(sigma(completedQ))_b - N(b) / (1 + n)`, uniform prior, first child on ties.

    Returns:
        The chosen slot and its node, 0 if that child is still to be expanded, both [B, P];
        meaningless at the root and at nodes that do not exist yet, whose children are all 0.

    Source: section 5, Gumbel MuZero (Danihelka et al. 2022), with two candidates.
    """
    index = tree.children.flatten(1)
    child_q, child_visits = (
        statistic.gather(1, index).view(tree.children.shape) for statistic in (tree.q, tree.visits)
    )
    raw_value = tree.raw_value[:, : tree.children.shape[1]]
    q = completed_q(raw_value, child_q, child_visits, 1.0)
    policy = torch.softmax(sigma(tree, q, child_visits, scoring), dim=-1)
    share = child_visits / (1.0 + child_visits.sum(-1, keepdim=True))
    slot = (policy - share).argmax(-1, keepdim=True)
    return slot.squeeze(-1), tree.children.gather(2, slot).squeeze(-1)


def descend(
    tree: Tree, start: torch.Tensor, max_length: int, scoring: Scoring
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Walk from each start node down to the place of a new leaf.

    Args:
        tree: The trees.
        start: Visited children of the root, where the walks begin [B, v].
        max_length: The longest possible path below the root, `start` included.
        scoring: Constants of the scores.

    Returns:
        The path [B, v, max_length], padded with 0 after its last node; that last node, the parent
        of the new leaf [B, v]; the slot of the parent that is to be expanded [B, v].
    """
    slots, next_nodes = select_children(tree, scoring)
    path = [start]
    for _ in range(max_length - 1):
        path.append(next_nodes.gather(1, path[-1]))
    paths = torch.stack(path, dim=-1)
    parent = paths.amax(-1)
    return paths, parent, slots.gather(1, parent)


def backup(
    tree: Tree, path: torch.Tensor, leaf: torch.Tensor, leaf_value: torch.Tensor, discount: float
) -> None:
    """Add the visits of one round to the nodes below the root, then to the min-max range.

    From the leaf up, `G = v(leaf)`; `W += G`, `N += 1`, `G = r + discount * G`. The paths of a
    round lie in different sub-trees. The root is left to `finish_root`.

    Args:
        tree: The trees, with the leaves' rewards stored.
        path: Nodes from the root's child to the leaf's parent, padded with 0 [B, v, L].
        leaf: The new nodes [B, v].
        leaf_value: Their raw values [B, v].
        discount: Discount of one step.
    """
    # Indices grow along a path, so that sorting puts the leaf first and the padding last.
    nodes = torch.cat([leaf.unsqueeze(-1), path], dim=-1).sort(dim=-1, descending=True).values
    real = nodes > 0
    flat_nodes = nodes.flatten(1)
    rewards = tree.reward.gather(1, flat_nodes).view(nodes.shape)
    returns = [leaf_value]
    for reward in rewards.unbind(-1):
        returns.append(torch.add(reward, returns[-1], alpha=discount))
    stacked = torch.stack(returns, dim=-1)
    tree.value_sum.scatter_add_(1, flat_nodes, (stacked[..., :-1] * real).flatten(1))
    tree.visits.scatter_add_(1, flat_nodes, real.flatten(1).to(tree.visits.dtype))
    mean = tree.value_sum / tree.visits.clamp_min(1.0)
    torch.add(tree.reward, mean, alpha=discount, out=tree.q)
    edge_returns = torch.where(real, stacked[..., 1:], stacked[..., 1:2]).flatten(1)
    tree.low = torch.minimum(tree.low, edge_returns.amin(-1))
    tree.high = torch.maximum(tree.high, edge_returns.amax(-1))


def finish_root(tree: Tree) -> torch.Tensor:
    """Set W and N of the root from its children; return its value, the mean over the visits [B].

    Each visit of a child c passed `r(c) + discount * G(c)` on to the root, hence
    `W(root) = v(root) + sum_c N(c) r(c) + discount * W(c)` and `N(root) = 1 + sum_c N(c)`.

    Source: eqs. 2-5, arXiv:2603.01452.
    """
    child_q = tree.q.gather(1, tree.root_children)
    child_visits = tree.visits.gather(1, tree.root_children)
    tree.visits[:, 0] = 1.0 + child_visits.sum(-1)
    tree.value_sum[:, 0] = tree.raw_value[:, 0] + (child_visits * child_q).sum(-1)
    return tree.value_sum[:, 0] / tree.visits[:, 0]
