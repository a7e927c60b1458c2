"""The search, one root and one simulation at a time, in plain Python: it defines the semantics.

Actions are lists of floats and all statistics Python floats; only the model sees tensors, of one
row. Every root is searched on its own, so nothing here knows about batches or padding of paths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from rllib_ezm.search import RootOutput, SearchModel, SearchNoise, SearchSettings, StepOutput


@dataclass
class OracleNode:
    latent: torch.Tensor
    raw_value: float
    reward: float = 0.0
    features: torch.Tensor | None = None
    visits: int = 0
    value_sum: float = 0.0
    parent: OracleNode | None = None
    actions: list[list[float]] = field(default_factory=list)
    children: list[int | None] = field(default_factory=list)

    @property
    def value(self) -> float:
        return self.value_sum / self.visits


@dataclass
class OracleSearch:
    """The finished search of one root; `nodes[0]` is the root."""

    nodes: list[OracleNode]
    scores: list[float]
    q_values: list[float]
    chosen: int

    @property
    def action(self) -> list[float]:
        return self.nodes[0].actions[self.chosen]

    @property
    def visit_counts(self) -> list[int]:
        return [0 if c is None else self.nodes[c].visits for c in self.nodes[0].children]


def _sample(
    mean: torch.Tensor, log_std: torch.Tensor, noise: torch.Tensor, scale: float, mask: list[float]
) -> list[float]:
    action = []
    rows = zip(mean.tolist(), log_std.tolist(), noise.tolist(), mask, strict=True)
    for mu, log_sigma, eps, real in rows:
        squashed = math.tanh(mu + scale * math.exp(log_sigma) * eps)
        action.append(min(max(squashed, -0.999), 0.999) if real else 0.0)
    return action


def _log_density(
    action: list[float], mean: torch.Tensor, log_std: torch.Tensor, mask: list[float]
) -> float:
    total = 0.0
    for a, mu, log_sigma, real in zip(action, mean.tolist(), log_std.tolist(), mask, strict=True):
        if real:
            a = min(max(a, -0.999), 0.999)
            z = (math.atanh(a) - mu) / math.exp(log_sigma)
            total += -0.5 * z * z - log_sigma - 0.5 * math.log(2 * math.pi) - math.log1p(-a * a)
    return total


def _softmax(logits: list[float]) -> list[float]:
    exponentials = [math.exp(x - max(logits)) for x in logits]
    return [x / sum(exponentials) for x in exponentials]


def _first_argmax(numbers: list[float]) -> int:
    return max(range(len(numbers)), key=lambda i: (numbers[i], -i))


class _Oracle:
    def __init__(
        self,
        model: SearchModel,
        task_id: torch.Tensor,
        mask: list[float],
        settings: SearchSettings,
        minmax_update: str,
    ) -> None:
        self.model = model
        self.task_id = task_id
        self.mask = mask
        self.settings = settings
        self.immediate = minmax_update == "simulation"
        self.low, self.high = math.inf, -math.inf
        self.nodes: list[OracleNode] = []
        self.root_prior: list[float] = []

    def wide(self) -> float:
        return self.settings.wide_std_factor if self.settings.wide_candidates else 1.0

    def q(self, node: OracleNode) -> float:
        return node.reward + self.settings.discount * node.value

    def norm(self, q: float) -> float:
        if self.low > self.high:
            return 0.0
        span = max(self.high - self.low, self.settings.minmax_delta)
        return min(max((q - self.low) / span, 0.0), 1.0)

    def child_visits(self, node: OracleNode) -> list[int]:
        return [0 if c is None else self.nodes[c].visits for c in node.children]

    def completed_q(self, node: OracleNode, prior: list[float]) -> list[float]:
        visited = [i for i, count in enumerate(self.child_visits(node)) if count > 0]
        n = sum(self.child_visits(node))
        mean_q = 0.0
        if visited:
            mean_q = sum(prior[i] * self.q(self.nodes[node.children[i]]) for i in visited)
            mean_q /= sum(prior[i] for i in visited)
        v_mix = (node.raw_value + n * mean_q) / (1 + n)
        return [
            self.q(self.nodes[child]) if i in visited else v_mix
            for i, child in enumerate(node.children)
        ]

    def sigma(self, node: OracleNode, q_values: list[float]) -> list[float]:
        scale = (self.settings.c_visit + max(self.child_visits(node))) * self.settings.c_scale
        return [scale * self.norm(q) for q in q_values]

    def select_slot(self, node: OracleNode) -> int:
        policy = _softmax(self.sigma(node, self.completed_q(node, [0.5, 0.5])))
        visits = self.child_visits(node)
        share = [count / (1 + sum(visits)) for count in visits]
        return _first_argmax([p - s for p, s in zip(policy, share, strict=True)])

    def find_leaf(self, candidate: int) -> tuple[OracleNode, int]:
        """Parent of the new leaf and the slot to expand."""
        node, slot = self.nodes[0], candidate
        while node.children[slot] is not None:
            node = self.nodes[node.children[slot]]
            slot = self.select_slot(node)
        return node, slot

    def evaluate(self, parent: OracleNode, slot: int, noise: torch.Tensor | None) -> OracleNode:
        if parent.features is not None:
            mean, log_std = self.model.policy(parent.features[None])
            scale = self.wide() if slot else 1.0
            parent.actions[slot] = _sample(mean[0], log_std[0], noise, scale, self.mask)
        action = torch.tensor([parent.actions[slot]], dtype=parent.latent.dtype)
        step: StepOutput = self.model.step(parent.latent[None], action, self.task_id[None])
        return OracleNode(
            latent=step.latent[0],
            raw_value=step.value.item(),
            reward=step.reward.item(),
            features=step.features[0],
            parent=parent,
            actions=[[], []],
            children=[None, None],
        )

    def backup(self, leaf: OracleNode) -> None:
        node: OracleNode | None = leaf
        value = leaf.raw_value
        while node is not None:
            node.value_sum += value
            node.visits += 1
            value = node.reward + self.settings.discount * value
            if node.parent is not None:
                self.low, self.high = min(self.low, value), max(self.high, value)
            node = node.parent

    def simulate_round(self, candidates: list[int], noise: torch.Tensor) -> None:
        new: list[tuple[OracleNode, int, OracleNode]] = []
        for offset, candidate in enumerate(candidates):
            parent, slot = self.find_leaf(candidate)
            index = len(self.nodes) if self.immediate else len(self.nodes) + offset
            first = index - 1 - (self.settings.num_simulations - len(noise))
            row = noise[first] if first >= 0 else None
            leaf = self.evaluate(parent, slot, row)
            if self.immediate:
                self.link(parent, slot, leaf)
            else:
                new.append((parent, slot, leaf))
        for parent, slot, leaf in new:
            self.link(parent, slot, leaf)

    def link(self, parent: OracleNode, slot: int, leaf: OracleNode) -> None:
        parent.children[slot] = len(self.nodes)
        self.nodes.append(leaf)
        self.backup(leaf)


def search_one_root(
    model: SearchModel,
    root: RootOutput,
    row: int,
    task_ids: torch.Tensor,
    action_mask: torch.Tensor,
    settings: SearchSettings,
    noise: SearchNoise,
    minmax_update: str = "round",
    replayed_action: torch.Tensor | None = None,
) -> OracleSearch:
    """Search the root in `row` of a batch.

    With `minmax_update="round"` statistics and min-max range wait for the end of a round; with
    "simulation" both change at once, in the order of the released code.
    """
    if minmax_update not in ("round", "simulation"):
        raise ValueError(f"minmax_update={minmax_update!r}: use 'round' or 'simulation'")
    mask = action_mask[row].tolist()
    oracle = _Oracle(model, task_ids[row], mask, settings, minmax_update)
    num_candidates, left = settings.num_candidates, settings.num_simulations
    mean, log_std = root.mean[row], root.log_std[row]
    root_node = OracleNode(root.latent[row], root.value[row].item())
    root_node.visits, root_node.value_sum = 1, root_node.raw_value
    for i in range(num_candidates):
        scale = 1.0 if i < settings.policy_candidates else oracle.wide()
        root_node.actions.append(_sample(mean, log_std, noise.root[row, i], scale, mask))
        root_node.children.append(None)
    if replayed_action is not None:
        replayed = zip(replayed_action[row].tolist(), mask, strict=True)
        root_node.actions[-1] = [a if real else 0.0 for a, real in replayed]
    oracle.nodes.append(root_node)
    logits = [0.0] * num_candidates
    if settings.root_prior == "policy":
        logits = [_log_density(action, mean, log_std, mask) for action in root_node.actions]
    base = [g + logit for g, logit in zip(noise.gumbel[row].tolist(), logits, strict=True)]
    prior = _softmax(logits)

    def scores() -> list[float]:
        sigma = oracle.sigma(root_node, oracle.completed_q(root_node, prior))
        return [b + s for b, s in zip(base, sigma, strict=True)]

    survivors = sorted(range(num_candidates), key=lambda i: (-base[i], i))
    num_phases = max(1, math.ceil(math.log2(num_candidates)))
    for phase in range(num_phases):
        m = len(survivors)
        budget = max(1, math.floor(settings.num_simulations / num_phases / m)) * m
        budget = left if phase == num_phases - 1 else min(budget, left)
        left -= budget
        while budget > 0:
            visited = survivors[: min(m, budget)]
            oracle.simulate_round(visited, noise.children[row])
            budget -= len(visited)
        if left == 0:
            break
        g = scores()
        survivors = sorted(survivors, key=lambda i: (-g[i], i))[: max(1, m // 2)]
    g = scores()
    chosen = survivors[_first_argmax([g[i] for i in survivors])]
    return OracleSearch(oracle.nodes, g, oracle.completed_q(root_node, prior), chosen)
