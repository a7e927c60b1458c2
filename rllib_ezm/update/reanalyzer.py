"""Search and TD targets of replayed segments with the target network (section 4.1).

Ray-free: the learner calls it in its own process; an actor may wrap it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from rllib_ezm.search.improved_policy import improved_policy
from rllib_ezm.search.settings import SearchSettings
from rllib_ezm.search.types import Plan, Planner, RootOutput
from rllib_ezm.update.value_targets import td_targets


class Reanalyzed(NamedTuple):
    """Targets of the states t..t+K of B segments.

    `td_value` [B, K+1], `search_value` [B, K+1], `value_variance` [B, K+1] (over the value heads),
    `policy_mean` and `policy_std` [B, K+1, A] (of the improved policy, before tanh), `fresh`
    [B, K+1], 1 for the states that were searched anew: the others have the stored targets.
    """

    td_value: torch.Tensor
    search_value: torch.Tensor
    value_variance: torch.Tensor
    policy_mean: torch.Tensor
    policy_std: torch.Tensor
    fresh: torch.Tensor


class Reanalyzer:
    """Computes the targets of a batch of segments.

    TD targets are made anew for all states, and search targets for those whose stored ones are the
    oldest. What is fresh is for the replay buffer to store: see `stored_targets`.

    Args:
        planner: Plans with the target network.
        settings: Search settings.
        unroll_steps: K.
        td_steps: n.
        discount: gamma per decision.
        ratio: Share of the states that are searched anew.
        replayed_candidate: Whether the action that was taken in a state is one of its candidates.
        best_action_only: See `improved_policy`.
    """

    def __init__(
        self,
        planner: Planner,
        settings: SearchSettings,
        *,
        unroll_steps: int,
        td_steps: int,
        discount: float,
        ratio: float = 1.0,
        replayed_candidate: bool = False,
        best_action_only: bool = False,
    ) -> None:
        self.planner, self.settings = planner, settings
        self.unroll_steps, self.td_steps, self.discount = unroll_steps, td_steps, discount
        self.ratio = ratio
        self.replayed_candidate = replayed_candidate
        self.best_action_only = best_action_only

    def refresh(self) -> None:
        """Take over the weights of this moment, before a compiled graph is run."""
        self.planner.refresh()

    @torch.no_grad()
    def __call__(self, batch: Mapping[str, torch.Tensor]) -> Reanalyzed:
        """Targets for a replay batch (columns as in `MultiTaskReplayBuffer.sample`)."""
        size, states = batch["obs"].shape[:2]
        searched = self.unroll_steps + 1
        task_ids = batch["task_ids"]
        inference = self.planner.root(
            batch["obs"].flatten(0, 1), task_ids.repeat_interleave(states)
        )
        td_value = td_targets(
            batch["rewards"],
            batch["step_mask"],
            batch["terminal"],
            inference.root.value.view(size, states),
            discount=self.discount,
            unroll_steps=self.unroll_steps,
            td_steps=self.td_steps,
        )
        variance = inference.value_variance.view(size, states)[:, :searched]
        search_value, policy_mean, policy_std = (
            batch[name] for name in ("search_values", "policy_means", "policy_stds")
        )
        fresh = torch.zeros_like(search_value)
        count = round(self.ratio * size * searched)
        if count:
            rows = None if self.ratio >= 1.0 else oldest(batch, searched, count)
            plan = self._search(inference.root, batch, rows)
            policy = improved_policy(plan, best_action_only=self.best_action_only)
            search_value = _replaced(search_value, rows, plan.value)
            policy_mean = _replaced(policy_mean, rows, policy.mean)
            policy_std = _replaced(policy_std, rows, policy.std)
            fresh = _replaced(fresh, rows, torch.ones_like(plan.value))
        return Reanalyzed(td_value, search_value, variance, policy_mean, policy_std, fresh)

    def _search(
        self, root: RootOutput, batch: Mapping[str, torch.Tensor], rows: torch.Tensor | None
    ) -> Plan:
        """Plans of these rows of the states to search [B * (K+1)], of all if None.

        `root` is of the states t..t+K+n.
        """
        size, states = batch["obs"].shape[:2]
        searched = self.unroll_steps + 1

        def chosen(x: torch.Tensor) -> torch.Tensor:
            flat = x[:, :searched].flatten(0, 1)
            return flat if rows is None else flat[rows]

        return self.planner.plan(
            RootOutput(*(chosen(x.view(size, states, *x.shape[1:])) for x in root)),
            chosen(batch["task_ids"][:, None].expand(-1, searched)),
            self.settings,
            replayed_action=chosen(batch["actions"]) if self.replayed_candidate else None,
        )


def oldest(batch: Mapping[str, torch.Tensor], searched: int, count: int) -> torch.Tensor:
    """The `count` states that were searched the longest time ago, ties broken at random.

    Args:
        batch: `searched_at` and `step_mask`; states without a transition come last.
        searched: States of each segment that may be chosen, the first ones.
        count: At most B * searched.

    Returns:
        Indices [count] into [B * searched].
    """
    searched_at = batch["searched_at"][:, :searched].double()
    key = searched_at + torch.rand_like(searched_at)
    key = key.masked_fill(batch["step_mask"][:, :searched] == 0, torch.inf)
    return key.flatten().topk(count, largest=False).indices


def _replaced(stored: torch.Tensor, rows: torch.Tensor | None, found: torch.Tensor) -> torch.Tensor:
    """Stored [B, S, ...] with `rows` of [B * S] replaced by what was found, [count, ...]."""
    if rows is None:
        return found.view_as(stored)
    return stored.flatten(0, 1).index_copy(0, rows, found.to(stored.dtype)).view_as(stored)


def stored_targets(reanalyzed: Reanalyzed, step_mask: torch.Tensor) -> torch.Tensor:
    """What a replay buffer is to store of the targets, in one array [B, K+1, 2 + 2A].

    Its columns: whether to store the state's, search value, policy mean, policy std. States without
    a transition are not stored.
    """
    fresh = reanalyzed.fresh * step_mask[:, : reanalyzed.fresh.shape[1]]
    scalars = torch.stack([fresh, reanalyzed.search_value], dim=-1)
    return torch.cat([scalars, reanalyzed.policy_mean, reanalyzed.policy_std], dim=-1)


PREFIX = "reanalyzed_"
"""Of the columns of a batch that hold the targets of a reanalyze worker."""


def is_reanalyzed(batch: Mapping[str, Any]) -> bool:
    """Whether a reanalyze worker has added its targets to a batch."""
    return PREFIX + Reanalyzed._fields[0] in batch


def reanalyzed_columns(batch: Mapping[str, torch.Tensor]) -> Reanalyzed | None:
    """The targets that a reanalyze worker has added to a batch; None if none has."""
    if not is_reanalyzed(batch):
        return None
    return Reanalyzed(*(batch[PREFIX + name] for name in Reanalyzed._fields))
