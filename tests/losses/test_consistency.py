from __future__ import annotations

import pytest
import torch

from rllib_ezm.losses.consistency import path_consistency_target, temporal_consistency_loss


def test_temporal_consistency_by_hand():
    # cos((3, 4), (3, 4)) = 1; cos((3, 4), (4, -3)) = 0; cos((1, 0), (3, 4)) = 0.6.
    prediction = torch.tensor([[[3.0, 4.0], [3.0, 4.0]], [[1.0, 0.0], [3.0, 4.0]]])
    target = torch.tensor([[[3.0, 4.0], [4.0, -3.0]], [[3.0, 4.0], [3.0, 4.0]]])
    everything = temporal_consistency_loss(prediction, target, torch.ones(2, 2))
    torch.testing.assert_close(everything, torch.tensor([-1.6, -1.0]))
    mask = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    first_step = temporal_consistency_loss(prediction, target, mask)
    torch.testing.assert_close(first_step, torch.tensor([-1.0, 0.0]))


def test_the_target_gets_no_gradient():
    torch.manual_seed(0)
    prediction = torch.randn(2, 3, 4, requires_grad=True)
    target = torch.randn(2, 3, 4, requires_grad=True)
    loss = temporal_consistency_loss(prediction, target, torch.ones(2, 3)).sum()
    gradients = torch.autograd.grad(loss, (prediction, target), allow_unused=True)
    assert gradients[0].abs().max() > 0
    assert gradients[1] is None


def test_scale_does_not_matter():
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    mask = torch.ones(2, 3)
    loss = temporal_consistency_loss(prediction, target, mask)
    scaled = temporal_consistency_loss(7.0 * prediction, 0.1 * target, mask)
    torch.testing.assert_close(loss, scaled)


def test_half_precision_latents_give_an_fp32_loss():
    latent = torch.ones(1, 1, 4, dtype=torch.bfloat16)
    loss = temporal_consistency_loss(latent, latent, torch.ones(1, 1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(-1.0)


def test_path_consistency_target_by_hand():
    reward = torch.tensor([[1.0, 1.0]], requires_grad=True)
    next_value = torch.tensor([[10.0, 10.0]], requires_grad=True)
    # 1 + 0.9 * 10, and no bootstrap into a terminal state.
    target = path_consistency_target(reward, next_value, torch.tensor([[1.0, 0.0]]), discount=0.9)
    assert target.tolist() == [[10.0, 1.0]]
    assert not target.requires_grad
