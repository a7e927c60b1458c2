from __future__ import annotations

import math

import torch

from rllib_ezm.search import Plan, improved_policy

HALF = math.atanh(0.5)


def test_moments_of_weighted_candidates_by_hand():
    candidates = torch.tensor([[[0.0, 0.5], [0.5, 0.5]]])
    plan = Plan(torch.zeros(1, 2), torch.zeros(1), candidates, torch.tensor([[0.25, 0.75]]))
    policy = improved_policy(plan, best_action_only=False)
    torch.testing.assert_close(policy.mean, torch.tensor([[0.75 * HALF, HALF]]))
    torch.testing.assert_close(policy.std, torch.tensor([[math.sqrt(0.1875) * HALF, 0.0]]))


def test_the_best_action_alone_has_no_deviation():
    candidates, weights = torch.rand(1, 3, 2), torch.full((1, 3), 1 / 3)
    for plan in (
        Plan(torch.tensor([[0.5, -0.5]]), torch.zeros(1), candidates, weights),
        Plan(torch.tensor([[0.5, -0.5]]), torch.zeros(1), None, None),
    ):
        only = plan.candidates is not None
        policy = improved_policy(plan, best_action_only=only)
        torch.testing.assert_close(policy.mean, torch.tensor([[HALF, -HALF]]))
        assert not policy.std.any()


def test_actions_at_the_bounds_stay_finite():
    plan = Plan(torch.tensor([[1.0, -1.0]]), torch.zeros(1), None, None)
    mean = improved_policy(plan, best_action_only=True).mean
    torch.testing.assert_close(mean.tanh(), torch.tensor([[0.999, -0.999]]))
