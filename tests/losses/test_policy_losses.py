from __future__ import annotations

import math

import pytest
import torch

from rllib_ezm.losses.policy import best_action_loss, candidate_distribution_loss, policy_entropy
from rllib_ezm.models.policy_distribution import squashed_log_prob

# -log pi(a) of the standard squashed normal: 0.918939 at 0; at 0.5 it is
# 0.918939 + atanh(0.5)^2 / 2 + log(1 - 0.25) = 0.918939 + 0.150869 - 0.287682 = 0.782126.
AT_ZERO, AT_HALF = 0.918939, 0.782126


def test_best_action_loss_by_hand():
    mean = log_std = torch.zeros(2, 2, 1)
    action = torch.tensor([[[0.0], [0.5]], [[0.5], [0.5]]])
    # Both samples carry a target at state 0, only sample 0 at state 1.
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    loss = best_action_loss(mean, log_std, action, torch.ones(2, 1), mask)
    torch.testing.assert_close(loss, torch.tensor([AT_ZERO + AT_HALF, AT_HALF]))


def test_best_action_loss_pulls_the_mean_to_the_action():
    mean = torch.zeros(1, 1, 2, requires_grad=True)
    action = torch.tensor([[[0.5, -0.5]]])
    loss = best_action_loss(mean, torch.zeros(1, 1, 2), action, torch.ones(1, 2), torch.ones(1, 1))
    (gradient,) = torch.autograd.grad(loss.sum(), mean)
    # d/dmu of (atanh(a) - mu)^2 / 2 at mu = 0 is -atanh(a).
    torch.testing.assert_close(gradient, torch.tensor([[[-0.549306, 0.549306]]]))


def test_candidate_distribution_loss_by_hand():
    mean = log_std = torch.zeros(1, 1, 1)
    candidates = torch.tensor([[[[0.0], [0.5]]]])
    weights = torch.tensor([[[0.25, 0.75]]])
    ones = torch.ones(1, 1)
    loss = candidate_distribution_loss(mean, log_std, candidates, weights, ones, ones)
    assert loss.item() == pytest.approx(0.25 * AT_ZERO + 0.75 * AT_HALF, abs=1e-6)


def test_candidate_distribution_with_all_weight_on_one_is_the_best_action_loss():
    torch.manual_seed(0)
    mean, log_std = torch.randn(3, 2, 4), torch.randn(3, 2, 4) * 0.3
    candidates = torch.rand(3, 2, 5, 4) * 1.8 - 0.9
    weights = torch.zeros(3, 2, 5)
    weights[..., 2] = 1.0
    action_mask = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    spread = candidate_distribution_loss(mean, log_std, candidates, weights, action_mask, mask)
    single = best_action_loss(mean, log_std, candidates[:, :, 2], action_mask, mask)
    torch.testing.assert_close(spread, single)


@pytest.mark.parametrize("loss", ["best_action", "distribution", "entropy", "squashed_entropy"])
def test_masked_action_dimensions_get_exactly_zero_gradient(loss):
    torch.manual_seed(0)
    mean = torch.randn(2, 2, 3, requires_grad=True)
    log_std = torch.randn(2, 2, 3, requires_grad=True)
    action_mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    mask, candidates = torch.ones(2, 2), torch.rand(2, 2, 4, 3) * action_mask[:, None]
    if loss == "best_action":
        out = best_action_loss(mean, log_std, candidates[:, :, 0], action_mask, mask)
    elif loss == "distribution":
        weights = torch.full((2, 2, 4), 0.25)
        out = candidate_distribution_loss(mean, log_std, candidates, weights, action_mask, mask)
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
    mean, log_std, action = torch.randn(1, 1, 3), torch.randn(1, 1, 3), torch.rand(1, 1, 3)
    action_mask, mask = torch.tensor([[1.0, 1.0, 0.0]]), torch.ones(1, 1)
    padded = best_action_loss(mean, log_std, action, action_mask, mask)
    own = best_action_loss(mean[..., :2], log_std[..., :2], action[..., :2], torch.ones(1, 2), mask)
    torch.testing.assert_close(padded, own)
    assert padded.item() == pytest.approx(
        -squashed_log_prob(action, mean, log_std, action_mask).item()
    )


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
