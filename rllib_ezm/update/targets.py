"""How a replay batch becomes the targets of an update (section 4.1, arXiv:2603.01452).

Legend: B batch, T tasks, K unroll steps, n TD steps, A padded action dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from rllib_ezm.models.world_model import WorldModel
from rllib_ezm.update.reanalyzer import Reanalyzed
from rllib_ezm.update.value_targets import age_mixing_weight, alive_mask, mix_values, state_masks
from rllib_ezm.update.variance_window import VarianceWindow

Metrics = dict[str, torch.Tensor]


class Targets(NamedTuple):
    """What an update learns from; K-major: states 0..K, transitions 0..K-1.

    `reward` [K, B], `value` [K+1, B], `policy_mean` and `policy_std` [K+1, B, A] (of the improved
    policy, before tanh), `action_mask` [B, A], `transition_mask` [K, B], `policy_mask` [K+1, B],
    `value_mask` [K+1, B], `alive` [K, B] (0 where state k+1 is terminal).
    """

    reward: torch.Tensor
    value: torch.Tensor
    policy_mean: torch.Tensor
    policy_std: torch.Tensor
    action_mask: torch.Tensor
    transition_mask: torch.Tensor
    policy_mask: torch.Tensor
    value_mask: torch.Tensor
    alive: torch.Tensor


class ValueMixing:
    """Mixed value targets `alpha z + (1 - alpha) v_search` (section 4.1).

    Args:
        method: What alpha follows: "variance" of the value heads, "age" of the sample, or "td" and
            "search" for one of the two alone.
        window: Range of the variance of each task, for "variance".
        age: Transitions of its task after which a sample uses the search value, for "age".
    """

    def __init__(self, method: str, window: VarianceWindow, *, age: int) -> None:
        self.method, self.window, self.age = method, window, age

    def __call__(
        self,
        batch: Mapping[str, torch.Tensor],
        reanalyzed: Reanalyzed,
        policy_mask: torch.Tensor,
        value_mask: torch.Tensor,
        started: bool,
    ) -> tuple[torch.Tensor, Metrics]:
        """Targets [B, K+1], and alpha's mean where it is learned; "variance" moves the window.

        Before it has `started`, "age" uses no search value.
        A terminal state, which has a value target but no policy target, keeps its TD value, 0.
        """
        td, search = reanalyzed.td_value, reanalyzed.search_value
        metrics: Metrics = {}
        if self.method == "td":
            return td, metrics
        if self.method == "search":
            alpha = torch.zeros_like(td)
        elif self.method == "age":
            alpha = age_mixing_weight(batch["age"], self.age)[:, None]
            if not started:
                alpha = torch.ones_like(alpha)
        else:
            self.window.update(reanalyzed.value_variance, value_mask, batch["task_ids"])
            alpha = self.window.alpha(reanalyzed.value_variance, batch["task_ids"])
            metrics["value_mixing_alpha"] = alpha.mean()
        return torch.where(policy_mask > 0, mix_values(alpha, td, search), td), metrics


class TargetBuilder:
    """Builds the targets of replay batches.

    Args:
        mixing: Mixes TD and search values.
        action_mask: [T, A], 1 for the real action dimensions of each task.
        unroll_steps: K.
    """

    def __init__(
        self,
        mixing: ValueMixing,
        action_mask: torch.Tensor,
        *,
        unroll_steps: int,
    ) -> None:
        self.mixing, self.action_mask = mixing, action_mask
        self.unroll_steps = unroll_steps

    @torch.no_grad()
    def __call__(
        self,
        batch: Mapping[str, torch.Tensor],
        reanalyzed: Reanalyzed,
        model: WorldModel,
        mixing_started: bool,
    ) -> tuple[Targets, Metrics]:
        """Targets of a batch (columns as in `MultiTaskReplayBuffer.sample`), and their metrics.

        Args:
            batch: The batch.
            reanalyzed: What the search says of it.
            model: Its supports tell which targets they cannot represent.
            mixing_started: See `ValueMixing`.
        """
        steps = self.unroll_steps
        policy_mask, value_mask = state_masks(batch["step_mask"], batch["terminal"], steps)
        value, metrics = self.mixing(batch, reanalyzed, policy_mask, value_mask, mixing_started)
        targets = Targets(
            reward=batch["rewards"][:, :steps].T,
            value=value.T,
            policy_mean=reanalyzed.policy_mean.transpose(0, 1),
            policy_std=reanalyzed.policy_std.transpose(0, 1),
            action_mask=self.action_mask[batch["task_ids"]],
            transition_mask=batch["step_mask"][:, :steps].T,
            policy_mask=policy_mask.T,
            value_mask=value_mask.T,
            alive=alive_mask(batch["step_mask"], batch["terminal"], steps).T,
        )
        return targets, metrics | target_metrics(targets, reanalyzed, model)


def target_metrics(targets: Targets, reanalyzed: Reanalyzed, model: WorldModel) -> Metrics:
    """Means over the states that have a value target; targets outside the supports, counted."""
    outside = (model.reward_support.overflow(targets.reward) * targets.transition_mask).sum()
    outside = outside + (model.value_support.overflow(targets.value) * targets.value_mask).sum()
    mask = targets.value_mask.T
    count = mask.sum().clamp(min=1.0)
    means = {
        "target_value": targets.value.T,
        "search_value": reanalyzed.search_value,
        "td_value": reanalyzed.td_value,
        "value_variance": reanalyzed.value_variance,
    }
    return {
        "support_overflow": outside,
        **{name: (values * mask).sum() / count for name, values in means.items()},
    }
