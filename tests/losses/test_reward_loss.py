from __future__ import annotations

import math

import pytest
import torch

from rllib_ezm.losses.reward import cross_entropy, reward_loss


def test_cross_entropy_by_hand():
    logits = torch.tensor([1.0, 2.0, 1.0]).log()  # probabilities 1/4, 1/2, 1/4
    # -(0.5 log 0.25 + 0.5 log 0.5) = 1.039721.
    target = torch.tensor([0.5, 0.5, 0.0])
    assert cross_entropy(logits, target).item() == pytest.approx(1.039721, abs=1e-6)


def test_reward_loss_by_hand():
    logits = torch.tensor([1.0, 3.0]).log().expand(2, 2, 2)  # probabilities 1/4, 3/4 everywhere
    target = torch.zeros(2, 2, 2)
    target[0, :, 0] = 1.0  # step 0: log 4 = 1.386294
    target[1, :, 1] = 1.0  # step 1: log 4/3 = 0.287682
    # Sample 0 has both transitions, sample 1 only the first.
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    expected = torch.tensor([1.386294 + 0.287682, 1.386294])
    torch.testing.assert_close(reward_loss(logits, target, mask), expected)


def test_reward_loss_is_smallest_at_the_target_distribution():
    target = torch.tensor([[[0.25, 0.75]]])
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    loss = reward_loss(target.log(), target, torch.ones(1, 1))
    assert loss.item() == pytest.approx(entropy, abs=1e-6)
    assert reward_loss(target.log() + torch.tensor([0.1, 0.0]), target, torch.ones(1, 1)) > loss


def test_half_precision_logits_are_summed_in_fp32():
    logits = torch.randn(2, 3, 11).bfloat16()
    target = torch.softmax(torch.randn(2, 3, 11), dim=-1)
    loss = reward_loss(logits, target, torch.ones(2, 3))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, reward_loss(logits.float(), target, torch.ones(2, 3)))
