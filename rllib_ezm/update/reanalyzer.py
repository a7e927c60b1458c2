"""Search and TD targets of replayed segments with the target network (section 4.1).

Ray-free: the learner calls it in its own process; an actor may wrap it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from rllib_ezm.search.settings import SearchSettings
from rllib_ezm.search.types import Planner, RootOutput
from rllib_ezm.update.value_targets import td_targets


class Reanalyzed(NamedTuple):
    """Targets of the states t..t+K of B segments.

    `td_value` [B, K+1], `search_value` [B, K+1], `value_variance` [B, K+1] (over the value heads),
    `best_action` [B, K+1, A], `candidates` [B, K+1, N, A], `weights` [B, K+1, N]; the last two are
    None where targets stored at acting time were used.
    """

    td_value: torch.Tensor
    search_value: torch.Tensor
    value_variance: torch.Tensor
    best_action: torch.Tensor
    candidates: torch.Tensor | None
    weights: torch.Tensor | None


class Reanalyzer:
    """Computes the targets of a batch of segments.

    Args:
        planner: Plans with the target network.
        settings: Search settings.
        unroll_steps: K.
        td_steps: n.
        discount: gamma per decision.
        ratio: Share of the segments searched anew; the rest keeps the stored acting-time targets.
        replayed_candidate: Whether the action that was taken in a state is one of its candidates.
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
    ) -> None:
        self.planner, self.settings = planner, settings
        self.unroll_steps, self.td_steps, self.discount = unroll_steps, td_steps, discount
        self.ratio = ratio
        self.replayed_candidate = replayed_candidate

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
        count = size if self.ratio >= 1.0 else round(self.ratio * size)
        rows = None if count == size else torch.randperm(size, device=task_ids.device)[:count]
        search_value = batch["search_values"].clone()
        best_action = batch["search_actions"].clone()
        candidates = weights = None
        if count:
            root = RootOutput(*(_segments(x, size, states, searched, rows) for x in inference.root))
            chosen = task_ids if rows is None else task_ids[rows]
            replayed_action = None
            if self.replayed_candidate:
                taken = batch["actions"] if rows is None else batch["actions"][rows]
                replayed_action = taken.flatten(0, 1)
            plan = self.planner.plan(
                root,
                chosen.repeat_interleave(searched),
                self.settings,
                replayed_action=replayed_action,
            )
            fresh_value = plan.value.view(count, searched)
            fresh_action = plan.action.view(count, searched, -1)
            if rows is None:
                search_value, best_action = fresh_value, fresh_action
                if plan.candidates is not None and plan.weights is not None:
                    candidates = plan.candidates.view(size, searched, *plan.candidates.shape[1:])
                    weights = plan.weights.view(size, searched, -1)
            else:
                search_value[rows], best_action[rows] = fresh_value, fresh_action
        return Reanalyzed(td_value, search_value, variance, best_action, candidates, weights)


def _segments(
    x: torch.Tensor, size: int, states: int, searched: int, rows: torch.Tensor | None
) -> torch.Tensor:
    """Rows of the states to search: [B * states, ...] -> [count * searched, ...]."""
    x = x.view(size, states, *x.shape[1:])[:, :searched]
    return (x if rows is None else x[rows]).flatten(0, 1)


PREFIX = "reanalyzed_"
"""Of the columns of a batch that hold the targets of a reanalyze worker."""


def is_reanalyzed(batch: Mapping[str, Any]) -> bool:
    """Whether a reanalyze worker has added its targets to a batch."""
    return PREFIX + Reanalyzed._fields[0] in batch


def reanalyzed_columns(batch: Mapping[str, torch.Tensor]) -> Reanalyzed | None:
    """The targets that a reanalyze worker has added to a batch; None if none has."""
    if not is_reanalyzed(batch):
        return None
    return Reanalyzed(*(batch.get(PREFIX + name) for name in Reanalyzed._fields))  # type: ignore[arg-type]
