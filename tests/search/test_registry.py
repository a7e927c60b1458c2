"""Planners by name and by class, and what a planner besides the Gumbel search is given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.shooting_planner import ShootingPlanner
from helpers.tiny_model import ACTION_MASK, OBS_DIM, tiny_model

from rllib_ezm.models.policy_distribution import mode_squashed
from rllib_ezm.search import (
    PLANNERS,
    GumbelPlanner,
    RootOutput,
    SearchSettings,
    StepOutput,
    WorldModelPlanner,
    planner_class,
)

SETTINGS = SearchSettings(num_simulations=32, num_candidates=32, discount=1.0)
BATCH = 6
TASK_IDS = torch.arange(BATCH) % 2


class DelayedReward:
    """An action a costs a at once and earns 3 a with the step after it; all values are 0."""

    def root(self, batch: int) -> RootOutput:
        mean = torch.zeros(batch, 1)
        return RootOutput(torch.zeros(batch, 1), torch.zeros(batch), mean, torch.zeros(batch, 1))

    def step(
        self, latent: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor
    ) -> StepOutput:
        reward = latent[:, 0] - action[:, 0]
        return StepOutput(3.0 * action, 3.0 * action, reward, torch.zeros_like(reward))

    def policy(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros_like(features), torch.full_like(features, -3.0)


def first_actions(planner: WorldModelPlanner, batch: int = 20) -> torch.Tensor:
    model, generator = DelayedReward(), torch.Generator().manual_seed(0)
    noise = planner.draw_noise(batch, 1, SETTINGS, torch.device("cpu"), generator)
    tasks, mask = torch.zeros(batch, dtype=torch.int64), torch.ones(batch, 1)
    return planner.search(model, model.root(batch), tasks, mask, SETTINGS, noise, None).action


def test_shooting_finds_the_action_that_pays_later() -> None:
    planner = ShootingPlanner(tiny_model(), ACTION_MASK)
    assert (first_actions(planner) > 0.5).all()
    planner.horizon = 1
    assert (first_actions(planner) < -0.5).all(), "one step ahead, the cost is all there is"


def test_a_name_is_its_class_and_a_class_itself() -> None:
    assert tuple(PLANNERS) == ("gumbel",)
    assert planner_class("gumbel") is planner_class(GumbelPlanner) is GumbelPlanner
    assert planner_class(ShootingPlanner) is ShootingPlanner


@pytest.mark.parametrize("wrong", ["mppi", None, dict, ["gumbel"]])
def test_what_is_no_planner_is_refused_with_the_names(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"is unknown; use one of \('gumbel',\), or a subclass"):
        planner_class(wrong)


def test_a_planner_without_a_search_is_refused() -> None:
    class Half(WorldModelPlanner):
        def search(self, *args: Any) -> Any:
            raise AssertionError

    with pytest.raises(ValueError, match="planner=Half does not define draw_noise"):
        planner_class(Half)


def test_a_planner_without_candidates_plans_in_chunks_and_without_settings() -> None:
    planner = ShootingPlanner(tiny_model(), ACTION_MASK, value_reduction="mean")
    observations = torch.randn(BATCH, OBS_DIM, generator=torch.Generator().manual_seed(0))
    root = planner.root(observations, TASK_IDS).root
    noise = planner.draw_noise(BATCH, 3, SETTINGS, torch.device("cpu"), None)
    together = planner.plan(root, TASK_IDS, SETTINGS, noise=noise)
    planner.chunk_size = 4
    in_chunks = planner.plan(root, TASK_IDS, SETTINGS, noise=noise)
    torch.testing.assert_close(in_chunks.action, together.action)
    torch.testing.assert_close(in_chunks.value, together.value)
    assert in_chunks.candidates is in_chunks.weights is None
    mask = ACTION_MASK[TASK_IDS]
    assert not together.action[mask == 0].any()
    unsearched = planner.plan(root, TASK_IDS, None)
    assert torch.equal(unsearched.action, mode_squashed(root.mean, mask))


def test_a_planner_without_candidates_refuses_a_replayed_action() -> None:
    planner = ShootingPlanner(tiny_model(), ACTION_MASK)
    root = planner.root(torch.zeros(BATCH, OBS_DIM), TASK_IDS).root
    with pytest.raises(ValueError, match="ShootingPlanner has no candidates"):
        planner.plan(root, TASK_IDS, SETTINGS, replayed_action=torch.zeros(BATCH, 3))
