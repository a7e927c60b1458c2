from __future__ import annotations

import math

import pytest
import torch
from torch import distributions

from rllib_ezm.models.policy_distribution import (
    MAX_ACTION,
    bound_log_std,
    gaussian_entropy,
    mode_squashed,
    sample_squashed,
    squashed_entropy,
    squashed_log_prob,
)


def squashed_normal(mean, log_std):
    return distributions.TransformedDistribution(
        distributions.Normal(mean, log_std.exp()), distributions.TanhTransform()
    )


def random_policy(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(*shape, generator=generator, dtype=torch.float64)
    log_std = torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.5 - 1
    return mean, log_std


def test_bound_log_std_by_hand():
    # -10 + 6 (tanh(0) + 1) = -4; tanh = 1/2 gives -10 + 6 * 1.5 = -1; the ends are the bounds.
    raw = torch.tensor([0.0, math.atanh(0.5), 100.0, -100.0])
    torch.testing.assert_close(bound_log_std(raw, -10, 2), torch.tensor([-4.0, -1.0, 2.0, -10.0]))


def test_squashed_log_prob_by_hand():
    zero, one = torch.zeros(1), torch.ones(1)
    # mu 0, sigma 1. a = 0: log N(0) = -0.918939. a = 0.5: atanh = 0.549306, so
    # log N = -0.150869 - 0.918939 = -1.069808, and -log(1 - 0.25) = 0.287682: -0.782126.
    at_zero = squashed_log_prob(zero, zero, zero, one)
    at_half = squashed_log_prob(torch.tensor([0.5]), zero, zero, one)
    assert at_zero.item() == pytest.approx(-0.918939, abs=1e-6)
    assert at_half.item() == pytest.approx(-0.782126, abs=1e-6)


def test_log_prob_equals_torch_distributions():
    mean, log_std = random_policy(50, 3)
    action = torch.rand(50, 3, dtype=torch.float64) * 1.9 - 0.95
    expected = squashed_normal(mean, log_std).log_prob(action).sum(-1)
    found = squashed_log_prob(action, mean, log_std, torch.ones(3))
    torch.testing.assert_close(found, expected)


def test_masked_dimensions_are_absent_from_log_prob_and_entropy():
    mean, log_std = random_policy(5, 4)
    action = torch.rand(5, 4, dtype=torch.float64) * 1.8 - 0.9
    mask, kept = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64), [0, 2]
    expected = squashed_normal(mean[:, kept], log_std[:, kept]).log_prob(action[:, kept]).sum(-1)
    torch.testing.assert_close(squashed_log_prob(action, mean, log_std, mask), expected)
    normal = distributions.Normal(mean[:, kept], log_std[:, kept].exp())
    torch.testing.assert_close(gaussian_entropy(log_std, mask), normal.entropy().sum(-1))


def test_masked_dimensions_get_exactly_zero_gradient():
    mean, log_std = (x.requires_grad_() for x in random_policy(5, 4))
    mask = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    action = torch.rand(5, 4, dtype=torch.float64)
    noise = torch.randn(5, 4, dtype=torch.float64)
    for out in (
        squashed_log_prob(action, mean, log_std, mask),
        sample_squashed(mean, log_std, noise, 1.0, mask),
    ):
        gradients = torch.autograd.grad(out.sum(), (mean, log_std))
        for gradient in gradients:
            assert (gradient[:, [1, 3]] == 0).all()
            assert (gradient[:, [0, 2]] != 0).all()
    (gradient,) = torch.autograd.grad(gaussian_entropy(log_std, mask).sum(), log_std)
    assert torch.equal(gradient, mask.expand(5, 4))


def test_gaussian_entropy_by_hand():
    # sigma 1: 0.5 + 0.5 log(2 pi) = 1.418939 nats; log sigma adds to it.
    assert gaussian_entropy(torch.tensor([0.0, 2.0]), torch.ones(2)).item() == pytest.approx(
        2 * 1.418939 + 2.0, abs=1e-5
    )


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.87), (2.3, 1.04), (-1.0, 0.3), (4.0, 0.5)])
def test_squashed_entropy_is_minus_the_mean_log_density(mean, std):
    policy = squashed_normal(torch.tensor(mean), torch.tensor(std, dtype=torch.float64).log())
    torch.manual_seed(0)
    normal = policy.base_dist.sample((400_000,))
    log_prob = policy.base_dist.log_prob(normal) - torch.log(1.0 - torch.tanh(normal).square())
    expected = -log_prob[log_prob.isfinite()].mean().item()
    found = squashed_entropy(
        torch.tensor([mean]), torch.tensor([std], dtype=torch.float64).log(), torch.ones(1)
    )
    assert found.item() == pytest.approx(expected, abs=0.01)


def test_squashed_entropy_is_at_most_that_of_uniform_actions():
    mean, log_std = random_policy(50, 3)
    assert (squashed_entropy(mean, log_std, torch.ones(3)) < 3 * math.log(2.0)).all()
    padded = squashed_entropy(mean, log_std, torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(padded, squashed_entropy(mean[:, :2], log_std[:, :2], torch.ones(2)))


def test_sample_by_hand():
    mean, log_std = torch.tensor([0.1, 0.1]), torch.tensor([math.log(0.2), math.log(0.2)])
    noise = torch.tensor([1.0, -1.0])
    # Pre-tanh 0.1 +- 0.2 with std_scale 1, and 0.1 +- 0.6 with 3.
    for scale, expected in ((1.0, [0.3, -0.1]), (3.0, [0.7, -0.5])):
        sample = sample_squashed(mean, log_std, noise, scale, torch.ones(2))
        torch.testing.assert_close(sample, torch.tensor(expected).tanh())


def test_samples_are_clipped_and_exactly_zero_where_masked():
    mean = torch.tensor([50.0, -50.0, 50.0])
    mask = torch.tensor([1.0, 1.0, 0.0])
    clipped = torch.tensor([MAX_ACTION, -MAX_ACTION, 0.0])
    sample = sample_squashed(mean, torch.zeros(3), torch.ones(3), 1.0, mask)
    assert torch.equal(sample, clipped)
    assert torch.equal(mode_squashed(mean, mask), clipped)


def test_mode_is_the_squashed_mean():
    # atanh(0.6) = 0.693147.
    mode = mode_squashed(torch.tensor([0.693147, 0.0]), torch.ones(2))
    torch.testing.assert_close(mode, torch.tensor([0.6, 0.0]))


def test_log_prob_of_actions_at_the_bounds_is_that_of_clipped_actions():
    mean, log_std = torch.zeros(1), torch.zeros(1)
    at_bound = squashed_log_prob(torch.ones(1), mean, log_std, torch.ones(1))
    clipped = squashed_log_prob(torch.tensor([MAX_ACTION]), mean, log_std, torch.ones(1))
    assert torch.isfinite(at_bound)
    assert torch.equal(at_bound, clipped)


def test_density_integrates_to_the_probability_inside_the_clip():
    mean, log_std = torch.tensor([[0.3]]).double(), torch.tensor([[-0.7]]).double()
    grid = torch.linspace(-MAX_ACTION, MAX_ACTION, 20_001, dtype=torch.float64)[:, None]
    density = squashed_log_prob(grid, mean, log_std, torch.ones(1)).exp()
    assert torch.trapezoid(density, grid[:, 0]).item() == pytest.approx(1.0, abs=1e-5)


def test_sample_frequencies_follow_the_density():
    torch.manual_seed(0)
    mean, log_std, mask = torch.tensor([0.4]), torch.tensor([-0.5]), torch.ones(1)
    samples = sample_squashed(mean, log_std, torch.randn(200_000, 1), 1.0, mask)
    below = (samples < 0.2).float().mean().item()
    # P(tanh(u) < 0.2) = P(u < atanh 0.2).
    cdf = distributions.Normal(mean, log_std.exp()).cdf(torch.tensor([math.atanh(0.2)]))
    assert below == pytest.approx(cdf.item(), abs=0.005)
