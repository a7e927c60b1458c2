from __future__ import annotations

import pytest
import torch
from torch import nn

from rllib_ezm.models.step_batch_norm import RootStepBatchNorm, StepBatchNorm

BATCH, STEPS, WIDTH = 7, 4, 3


def random_pair():
    """`nn.BatchNorm1d` and `StepBatchNorm` with the same random parameters, in fp64."""
    torch.manual_seed(0)
    reference = nn.BatchNorm1d(WIDTH).double()
    with torch.no_grad():
        reference.weight.uniform_(0.5, 1.5)
        reference.bias.uniform_(-0.5, 0.5)
        reference.running_mean.uniform_(-0.5, 0.5)
        reference.running_var.uniform_(0.5, 1.5)
    norm = StepBatchNorm(WIDTH).double()
    norm.load_state_dict(reference.state_dict())
    return reference, norm


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("steps", [1, STEPS])
def test_steps_in_one_call_equal_one_call_per_step(training, steps):
    reference, norm = (module.train(training) for module in random_pair())
    for _ in range(2):
        # Each step has its own mean and scale, so that joint statistics would be seen.
        x = torch.randn(BATCH, steps, WIDTH, dtype=torch.float64)
        x = x * torch.arange(1, steps + 1)[:, None] + torch.arange(steps)[:, None]
        factor = torch.randn_like(x)
        expected = torch.stack([reference(x[:, k]) for k in range(steps)], dim=1)
        (expected * factor).sum().backward()
        y = norm(x.flatten(0, 1), steps).view(BATCH, steps, WIDTH)
        (y * factor).sum().backward()
        torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    for name, parameter in reference.named_parameters():
        gradient = norm.get_parameter(name).grad
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-12, atol=1e-12)
    state = norm.state_dict()
    assert state["num_batches_tracked"] == (2 * steps if training else 0)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-12, atol=1e-12, msg=name)


def test_gradient_into_the_input_keeps_the_steps_apart():
    _, norm = random_pair()
    x = torch.randn(BATCH * STEPS, WIDTH, dtype=torch.float64, requires_grad=True)
    y = norm(x, STEPS).view(BATCH, STEPS, WIDTH)
    (gradient,) = torch.autograd.grad(y[:, 1].square().sum() + y[0, 1].sum(), x)
    gradient = gradient.view(BATCH, STEPS, WIDTH)
    assert gradient[:, 1].abs().min() > 0
    assert (gradient[:, [0, 2, 3]] == 0).all()


def test_running_statistics_stay_fp32_under_autocast():
    _, norm = random_pair()
    norm = norm.float()
    x = torch.randn(BATCH * STEPS, WIDTH).bfloat16().float()
    exact, rounded = norm, StepBatchNorm(WIDTH)
    rounded.load_state_dict(norm.state_dict())
    exact(x, STEPS)
    with torch.autocast("cpu", torch.bfloat16):
        rounded(x.bfloat16(), STEPS)
    assert rounded.running_var.dtype == torch.float32
    torch.testing.assert_close(rounded.running_mean, exact.running_mean)
    torch.testing.assert_close(rounded.running_var, exact.running_var)


def draw_statistics(norm):
    with torch.no_grad():
        for mean, variance in (norm.statistics(root) for root in (False, True)):
            mean.uniform_(-0.5, 0.5)
            variance.uniform_(0.5, 1.5)


@pytest.mark.parametrize("root", [False, True])
def test_a_root_has_running_statistics_of_its_own(root):
    torch.manual_seed(0)
    norm = RootStepBatchNorm(WIDTH)
    draw_statistics(norm)
    own, other = norm.statistics(root), norm.statistics(not root)
    before = [x.clone() for x in (*own, *other)]
    x = torch.randn(BATCH, WIDTH)
    norm(x, root=root)
    # `r <- 0.9 r + 0.1 x`, the variance unbiased.
    torch.testing.assert_close(own[0], 0.9 * before[0] + 0.1 * x.mean(0))
    torch.testing.assert_close(own[1], 0.9 * before[1] + 0.1 * x.var(0))
    assert all(map(torch.equal, other, before[2:]))
    expected = (x - own[0]) / (own[1] + norm.eps).sqrt()
    torch.testing.assert_close(norm.eval()(x, root=root), expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_first_of_several_steps_is_a_root(training):
    torch.manual_seed(0)
    stepwise, together = RootStepBatchNorm(WIDTH), RootStepBatchNorm(WIDTH)
    draw_statistics(stepwise)
    together.load_state_dict(stepwise.state_dict())
    x = torch.randn(BATCH, STEPS, WIDTH) * torch.arange(1, STEPS + 1)[:, None]
    stepwise.train(training), together.train(training)
    expected = torch.stack([stepwise(x[:, k], root=k == 0) for k in range(STEPS)], dim=1)
    found = together(x.flatten(0, 1), STEPS).view(BATCH, STEPS, WIDTH)
    torch.testing.assert_close(found, expected)
    for name, value in stepwise.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], value, msg=name)
    assert stepwise.num_batches_tracked == (STEPS - 1 if training else 0)
