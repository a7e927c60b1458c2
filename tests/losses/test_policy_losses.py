from __future__ import annotations

import math

import pytest
import torch

from rllib_ezm.losses.policy import policy_entropy, policy_loss
from rllib_ezm.models.policy_distribution import squashed_log_prob
from rllib_ezm.search import Plan, improved_policy

# -log N(u; 0, 1) is 0.918939 at 0, and 0.918939 + u^2 / 2 = 1.069808 at u = atanh(0.5) = 0.549306.
AT_ZERO, AT_HALF, HALF = 0.918939, 1.069808, 0.549306


def test_the_loss_of_a_best_action_by_hand():
    mean = log_std = std = torch.zeros(2, 2, 1)
    target = torch.tensor([[[0.0], [HALF]], [[HALF], [HALF]]])
    # Both samples carry a target at state 0, only sample 0 at state 1.
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    loss = policy_loss(mean, log_std, target, std, torch.ones(2, 1), mask)
    torch.testing.assert_close(loss, torch.tensor([AT_ZERO + AT_HALF, AT_HALF]))


def test_the_loss_of_weighted_candidates_by_hand():
    zero, ones = torch.zeros(1, 1, 1), torch.ones(1, 1)
    # 0 with weight 0.25 and atanh(0.5) with 0.75: mean 0.75 u, variance 0.25 * 0.75 u^2.
    mean, std = zero + 0.75 * HALF, zero + math.sqrt(0.1875) * HALF
    loss = policy_loss(zero, zero, mean, std, ones, ones)
    assert loss.item() == pytest.approx(0.25 * AT_ZERO + 0.75 * AT_HALF, abs=1e-6)


def test_the_loss_pulls_the_mean_to_the_action():
    mean, zeros = torch.zeros(1, 1, 2, requires_grad=True), torch.zeros(1, 1, 2)
    target = torch.tensor([[[HALF, -HALF]]])
    loss = policy_loss(mean, zeros, target, zeros, torch.ones(1, 2), torch.ones(1, 1))
    (gradient,) = torch.autograd.grad(loss.sum(), mean)
    # d/dmu of (atanh(a) - mu)^2 / 2 at mu = 0 is -atanh(a).
    torch.testing.assert_close(gradient, torch.tensor([[[-HALF, HALF]]]))


@pytest.mark.parametrize("best_action_only", [False, True])
def test_its_gradient_is_that_of_the_log_density_of_the_actions(best_action_only):
    torch.manual_seed(0)
    mean = torch.randn(3, 2, 4, dtype=torch.double, requires_grad=True)
    log_std = (torch.randn(3, 2, 4).double() * 0.3).requires_grad_()
    candidates = torch.rand(3, 2, 5, 4).double() * 1.8 - 0.9
    weights = torch.softmax(torch.randn(3, 2, 5).double(), dim=-1)
    action_mask = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]).double()
    mask = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]]).double()
    best = candidates[:, :, 2]
    plan = Plan(best, torch.zeros(3, 2), candidates, weights)
    target = improved_policy(plan, best_action_only=best_action_only)
    loss = policy_loss(mean, log_std, *target, action_mask, mask).sum()
    if best_action_only:
        log_prob = squashed_log_prob(best, mean, log_std, action_mask)  # eq. 6
    else:  # eq. 5
        each = (candidates, mean.unsqueeze(2), log_std.unsqueeze(2), action_mask.unsqueeze(1))
        log_prob = (weights * squashed_log_prob(*each)).sum(dim=-1)
    expected = torch.autograd.grad(-(log_prob * mask).sum(), (mean, log_std))
    found = torch.autograd.grad(loss, (mean, log_std))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", ["policy", "entropy", "squashed_entropy"])
def test_masked_action_dimensions_get_exactly_zero_gradient(loss):
    torch.manual_seed(0)
    mean = torch.randn(2, 2, 3, requires_grad=True)
    log_std = torch.randn(2, 2, 3, requires_grad=True)
    action_mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    mask = torch.ones(2, 2)
    if loss == "policy":
        target = torch.randn(2, 2, 3), torch.rand(2, 2, 3)
        out = policy_loss(mean, log_std, *target, action_mask, mask)
    else:
        squashed = loss == "squashed_entropy"
        out = policy_entropy(mean, log_std, action_mask, mask, squashed=squashed)
    for x in (mean, log_std):
        (gradient,) = torch.autograd.grad(out.sum(), x, retain_graph=True, allow_unused=True)
        if gradient is None:
            assert (loss, x is mean) == ("entropy", True)
            continue
        assert (gradient[:, 1, 1:] == 0).all()
        assert (gradient[:, 0] != 0).all()
        assert (gradient[:, 1, 0] != 0).all()


def test_padding_dimensions_do_not_change_the_loss():
    torch.manual_seed(0)
    columns = [*torch.randn(3, 1, 1, 3), torch.rand(1, 1, 3)]
    mask = torch.ones(1, 1)
    padded = policy_loss(*columns, torch.tensor([[1.0, 1.0, 0.0]]), mask)
    own = policy_loss(*(column[..., :2] for column in columns), torch.ones(1, 2), mask)
    torch.testing.assert_close(padded, own)


def test_policy_entropy_by_hand():
    # One Gaussian dimension: 0.5 + 0.5 log(2 pi) + log sigma = 1.418939 + log sigma.
    log_std = torch.tensor([[[0.0, 5.0]], [[math.log(2.0), 5.0]]])
    action_mask = torch.tensor([[1.0, 0.0]])
    states = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [1.0]])
    both, second = (
        policy_entropy(torch.randn(2, 1, 2), log_std, action_mask, mask, squashed=False)
        for mask in states
    )
    assert both.item() == pytest.approx(2 * 1.418939 + math.log(2.0), abs=1e-5)
    assert second.item() == pytest.approx(1.418939 + math.log(2.0), abs=1e-5)


def test_a_bonus_of_squashed_entropy_draws_a_saturated_mean_back():
    mean = torch.full((1, 1, 1), 2.3, requires_grad=True)
    log_std, ones = torch.zeros(1, 1, 1), torch.ones(1, 1)
    policy_entropy(mean, log_std, ones, ones, squashed=True).backward()
    # d/d(mu) of E[log(1 - tanh(u)^2)] is -2 E[tanh(u)], nearly -2.
    assert -2.0 < mean.grad.item() < -1.8
