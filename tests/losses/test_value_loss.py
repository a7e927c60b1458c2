from __future__ import annotations

import torch

from rllib_ezm.losses.value import head_mean_log_softmax, value_loss


def test_value_loss_by_hand():
    # Two heads with probabilities (1/4, 3/4) and (1/2, 1/2), one sample, states 0 and 1.
    heads = torch.tensor([[1.0, 3.0], [2.0, 2.0]]).log()
    logits = heads[None, :, None, :].expand(2, 2, 1, 2)
    target = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    # State 0: (log 4 + log 2) / 2 = 1.039721. State 1: (log 4/3 + log 2) / 2 = 0.490415.
    log_probabilities = head_mean_log_softmax(logits)
    both = value_loss(log_probabilities, target, torch.ones(2, 1))
    torch.testing.assert_close(both, torch.tensor([1.530136]))
    first = value_loss(log_probabilities, target, torch.tensor([[1.0], [0.0]]))
    torch.testing.assert_close(first, torch.tensor([1.039721]))


def test_every_head_learns_on_its_own():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 2, 5, requires_grad=True)
    target = torch.softmax(torch.randn(1, 2, 5), dim=-1)
    loss = value_loss(head_mean_log_softmax(logits), target, torch.ones(1, 2)).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    # d CE / d logits = softmax - target, and the mean over 3 heads divides by 3.
    expected = (torch.softmax(logits, dim=-1) - target[:, None]) / 3
    torch.testing.assert_close(gradient, expected)
