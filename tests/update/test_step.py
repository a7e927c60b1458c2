"""The gradient step by itself: torch only, no RLlib."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from helpers.tiny_model import ACTION_MASK, tiny_model
from helpers.tiny_step import N_STEP, K, random_batch

from rllib_ezm.models.collective import Collective
from rllib_ezm.search import SearchSettings
from rllib_ezm.search.gumbel_planner import GumbelPlanner
from rllib_ezm.update.nonfinite import NonFiniteUpdatesError
from rllib_ezm.update.reanalyzer import Reanalyzer
from rllib_ezm.update.settings import TrainingSettings
from rllib_ezm.update.step import GradientStep, make_optimizer
from rllib_ezm.update.variance_window import VarianceWindow

SETTINGS = TrainingSettings(
    unroll_steps=K,
    td_steps=N_STEP,
    gamma=0.9,
    target_tau=0.25,
    max_consecutive_nonfinite_updates=2,
)


def make_step(**changes: Any) -> GradientStep:
    settings = dataclasses.replace(SETTINGS, **changes)
    model = tiny_model()
    target = copy.deepcopy(model).requires_grad_(False)
    optimizer = make_optimizer(model.parameters(), weight_decay=0.0)
    optimizer.param_groups[0]["lr"] = 1e-2
    search = SearchSettings(num_simulations=4, num_candidates=4, policy_candidates=2)
    reanalyzer = Reanalyzer(
        GumbelPlanner(target, ACTION_MASK, value_reduction="mean"),
        search,
        unroll_steps=K,
        td_steps=N_STEP,
        discount=settings.gamma,
    )
    window = VarianceWindow(2, 0.9)
    return GradientStep(
        model,
        target,
        optimizer,
        reanalyzer,
        window,
        ACTION_MASK,
        ("first", "second"),
        settings,
        Collective(),
    )


def test_losses_fall_on_one_batch() -> None:
    torch.manual_seed(0)
    step, batch = make_step(value_mixing="td"), random_batch()
    losses = [float(step(batch).loss) for _ in range(60)]
    assert losses[-1] < losses[0] - 1.0
    assert step.num_updates == 60


def test_the_target_network_follows_every_period_of_updates() -> None:
    step, batch = make_step(target_period=2), random_batch()
    target = step.target_network._moving
    before = [x.clone() for x in target]
    step(batch)
    assert all(torch.equal(x, y) for x, y in zip(target, before, strict=True))
    step(batch)
    # 0.75 * old + 0.25 * online, of weights and BatchNorm statistics.
    for now, old, online in zip(target, before, step.target_network._moving_sources, strict=True):
        torch.testing.assert_close(now, 0.75 * old + 0.25 * online.detach())


def test_the_gradient_is_the_one_of_the_weighted_sample_losses() -> None:
    step, other, batch = make_step(grad_clip=None), make_step(), random_batch()
    torch.manual_seed(3)
    step(batch)
    torch.manual_seed(3)
    other.sample_losses(batch).mean().backward()
    ours, theirs = step.model.named_parameters(), dict(other.model.named_parameters())
    compared = 0
    for name, parameter in ours:
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, msg=name)
            compared += 1
    assert compared > 20


def test_rewards_and_masks_of_the_targets_by_hand() -> None:
    """Lengths 5, 4, 1, 2, 5, 3 of two unrolled steps; the third and fourth end terminally."""
    batch = random_batch() | {"terminal": torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0, 0.0])}
    targets = make_step().targets(batch).targets
    expected = {
        "reward": batch["rewards"][:, :2].T.tolist(),
        "transition_mask": [[1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1]],
        "alive": [[1, 1, 0, 1, 1, 1], [1, 1, 1, 0, 1, 1]],
        "policy_mask": [[1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1], [1, 1, 0, 0, 1, 1]],
    }
    assert {name: getattr(targets, name).tolist() for name in expected} == expected


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_the_latent_gradient_scale_reaches_the_dynamics(scale: float) -> None:
    """With 0, no gradient flows back into the dynamics."""
    torch.manual_seed(0)
    step, batch = make_step(latent_gradient_scale=scale, grad_clip=None), random_batch()
    step(batch)
    norms = [float(p.grad.norm()) for p in step.model.dynamics_model.parameters()]
    assert (max(norms) > 0.0) == (scale > 0.0)


def test_priorities_are_the_distance_of_value_and_target() -> None:
    step, twin, batch = make_step(value_mixing="td"), make_step(value_mixing="td"), random_batch()
    torch.manual_seed(1)
    result = step(batch)
    torch.manual_seed(1)
    targets = twin.targets(batch).targets
    values = twin.model.value_support.decode(twin.unroll(batch).value_logits[0]).mean(dim=0)
    torch.testing.assert_close(result.priorities, (values - targets.value[0]).abs().detach())


def test_a_skipped_update_leaves_weights_and_statistics_alone() -> None:
    step, batch = make_step(), random_batch()
    step(batch)
    before = copy.deepcopy(step.model.state_dict())
    batch["rewards"][0, 0] = torch.nan
    output = step(batch)
    assert output.metrics["skipped_updates"] == 1
    step.check_finite(output, batch)
    for name, value in step.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, msg=name)
    output = step(batch)
    with pytest.raises(NonFiniteUpdatesError, match=r"2 updates in a row.*'reward' of task first"):
        step.check_finite(output, batch)
    output = step(random_batch())
    step.check_finite(output, batch)
    assert int(step.guard.num_consecutive) == 0
    assert output.metrics["skipped_updates"] == 0
    moved = step.model.state_dict()["reward_model.head.output.weight"]
    assert not torch.equal(moved, before["reward_model.head.output.weight"])
