"""A grown world model says of the tasks it knew what it said before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.tiny_model import (
    ACTION_DIM,
    ACTION_MASK,
    NUM_TASKS,
    OBS_DIM,
    Inputs,
    random_inputs,
    tiny_model,
)

from rllib_ezm.models import WorldModel
from rllib_ezm.models.growth import Growth
from rllib_ezm.models.inference import FoldedModel
from rllib_ezm.models.masks import prefix_mask
from rllib_ezm.search.gumbel_planner import GumbelPlanner
from rllib_ezm.search.sampling import SearchNoise, draw_noise
from rllib_ezm.search.settings import SearchSettings

OLD_OBS, OLD_ACTIONS = (5, 3), (3, 1)  # those of the masks of `tiny_model`

SAME_DIMS = Growth(OLD_OBS, OLD_ACTIONS, (5, 3, 4), (3, 1, 2), (0, 1, None), ((), (), (0, 1)))
REORDERED = Growth(OLD_OBS, OLD_ACTIONS, (3, 4, 5), (1, 2, 3), (1, None, 0), ((), (0,), ()))
LARGER = Growth(OLD_OBS, OLD_ACTIONS, (5, 3, 17), (3, 1, 6), (0, 1, None), ((), (), (0, 1)))
BOTH = Growth(OLD_OBS, OLD_ACTIONS, (3, 9, 5), (1, 5, 3), (1, None, 0), ((), (0,), ()))
GROWTHS = pytest.mark.parametrize(
    "growth",
    [SAME_DIMS, REORDERED, LARGER, BOTH],
    ids=["same dims", "reordered", "larger", "larger and reordered"],
)


def same(new: torch.Tensor, old: torch.Tensor, growth: Growth) -> bool:
    """Bit for bit; of a model that has grown, up to the order in which a wider product sums."""
    if growth.more_obs or growth.more_actions:
        digits = 1e-13 if old.dtype == torch.float64 else 1e-5
        return torch.allclose(new, old, rtol=digits, atol=digits)
    return torch.equal(new, old)


def grown(old: WorldModel, growth: Growth) -> WorldModel:
    spec = replace(
        old.spec,
        obs_dim=max(growth.obs_dims),
        action_dim=max(growth.action_dims),
        num_tasks=len(growth.source),
        normalized_action_dim=ACTION_DIM,
    )
    model = WorldModel(spec, prefix_mask(growth.obs_dims)).to(old.task_embedding.weight.dtype)
    model.load_state_dict(growth.weights(old.state_dict()))
    return model.eval()


def trained() -> WorldModel:
    """With statistics of observations, as after some updates."""
    model = tiny_model()
    inputs = random_inputs(batch=64)
    model.normalizer.update(inputs.observations[:, 0] * 3.0 + 1.0, inputs.task_ids)
    return model


def padded(x: torch.Tensor, width: int) -> torch.Tensor:
    return torch.nn.functional.pad(x, (0, width - x.shape[-1]))


def new_ids(growth: Growth, old_ids: torch.Tensor) -> torch.Tensor:
    place = {old: new for new, old in enumerate(growth.source) if old is not None}
    return torch.tensor([place[int(task)] for task in old_ids])


@GROWTHS
def test_the_outputs_of_known_tasks_are_the_same(growth: Growth) -> None:
    wider = growth.more_obs or growth.more_actions
    dtype = torch.float64 if wider else torch.float32
    old = trained().to(dtype)
    new = grown(old, growth)
    inputs = Inputs(*(x.to(dtype) if x.is_floating_point() else x for x in random_inputs()))
    tasks = new_ids(growth, inputs.task_ids)
    wide_obs = padded(inputs.observations[:, 0], new.spec.obs_dim)
    wide_action = padded(inputs.actions[:, 0], new.spec.action_dim)
    with torch.no_grad():
        before, after = old.embed(inputs.task_ids), new.embed(tasks)
        latent = old.represent(inputs.observations[:, 0], inputs.task_ids, before)
        wide = new.represent(wide_obs, tasks, after)
        assert same(wide, latent, growth)
        following = old.dynamics(latent, inputs.actions[:, 0], before)
        assert same(new.dynamics(wide, wide_action, after), following, growth)
        reward = old.reward(latent, inputs.actions[:, 0], before)
        assert same(new.reward(wide, wide_action, after), reward, growth)
        for x in (latent, following):
            narrow, wide = old.predict(x, before), new.predict(x, after)
            assert same(wide.value_logits, narrow.value_logits, growth)
            assert same(wide.mean[:, :ACTION_DIM], narrow.mean, growth)
            assert same(wide.log_std[:, :ACTION_DIM], narrow.log_std, growth)


@GROWTHS
def test_a_search_acts_for_known_tasks_as_before(growth: Growth) -> None:
    old = trained()
    new = grown(old, growth)
    inputs = random_inputs()
    settings = SearchSettings(
        num_simulations=8, num_candidates=4, policy_candidates=2, root_prior="policy"
    )
    noise = draw_noise(6, ACTION_DIM, settings, "cpu", generator=torch.Generator().manual_seed(0))
    plans = []
    for model, ids, mask in (
        (old, inputs.task_ids, ACTION_MASK),
        (new, new_ids(growth, inputs.task_ids), prefix_mask(growth.action_dims)),
    ):
        width = model.spec.action_dim
        drawn = SearchNoise(padded(noise.root, width), padded(noise.children, width), noise.gumbel)
        planner = GumbelPlanner(model, mask, value_reduction="mean")
        observations = padded(inputs.observations[:, 0], model.spec.obs_dim)
        root = planner.root(observations, ids).root
        plans.append(planner.plan(root, ids, settings, noise=drawn)[:2])
    (action, value), (wide_action, wide_value) = plans
    assert same(wide_action[:, :ACTION_DIM], action, growth)
    assert same(wide_value, value, growth)
    assert not wide_action[:, ACTION_DIM:].any()


def test_new_outputs_are_those_of_a_new_network() -> None:
    new = grown(trained(), LARGER)
    inputs = random_inputs(batch=4)
    tasks = torch.full((4,), 2)
    observations = torch.randn(4, 17)
    with torch.no_grad():
        embedding = new.embed(tasks)
        prediction = new.predict(new.represent(observations, tasks, embedding), embedding)
    middle = (new.spec.log_std_min + new.spec.log_std_max) / 2
    assert (prediction.mean[:, ACTION_DIM:] == 0).all()
    assert torch.allclose(prediction.log_std[:, ACTION_DIM:], torch.tensor(middle))
    assert torch.equal(new.normalizer.variance[OBS_DIM:], torch.ones(12))
    assert torch.equal(new.normalizer.count[OBS_DIM:], torch.zeros(12))
    assert inputs.task_ids.max() < NUM_TASKS


def test_an_unknown_task_begins_with_the_mean_of_its_relatives() -> None:
    old = trained()
    with torch.no_grad():
        old.task_embedding.weight[0] *= 5.0  # looks up with norm 1 all the same
    used = old.task_embedding.normalized()
    weight = grown(old, SAME_DIMS).task_embedding.weight
    assert torch.equal(weight[:2], old.task_embedding.weight)
    assert torch.allclose(weight[2], used.mean(dim=0))
    assert torch.equal(grown(old, REORDERED).task_embedding.weight[1], used[0])


def test_added_dims_are_learned_from() -> None:
    new = grown(trained(), LARGER).train()
    tasks = torch.full((6,), 2)
    embedding = new.embed(tasks)
    latent = new.represent(torch.randn(6, 17), tasks, embedding)
    action = torch.rand(6, 6)
    (
        new.dynamics(latent, action, embedding).square().sum()
        + new.reward(latent, action, embedding)[:, 0].sum()
    ).backward()
    for name, column in (
        ("representation.0.linear.weight", OBS_DIM),
        ("dynamics_model.mix.weight", -1),
        ("reward_model.action_encoder.linear.weight", ACTION_DIM),
    ):
        gradient = new.get_parameter(name).grad
        assert gradient is not None
        assert gradient[:, column].abs().sum() > 0, name


def test_the_folded_view_of_a_grown_model_is_the_model() -> None:
    new = grown(trained(), LARGER)
    with torch.no_grad():
        torch.nn.init.normal_(new.dynamics_model.mix.weight)
        tasks = torch.tensor([0, 1, 2])
        embedding = new.embed(tasks)
        latent, action = torch.randn(3, new.spec.latent_dim), torch.rand(3, 6)
        view = FoldedModel(new)
        folded = view.dynamics(latent, action, view.tasks(tasks))
        assert torch.allclose(folded, new.dynamics(latent, action, embedding), atol=1e-5)


def test_growth_in_two_steps_is_growth() -> None:
    old = trained()
    first = grown(old, SAME_DIMS)
    second = Growth((5, 3, 4), (3, 1, 2), (5, 3, 4, 17), (3, 1, 2, 6), (0, 1, 2, None), ((),) * 4)
    twice = grown(first, replace(second, relatives=((), (), (), (2,))))
    assert torch.equal(twice.task_embedding.weight[:3], first.task_embedding.weight)
    assert twice.dynamics_model.norm.weight.shape == old.dynamics_model.norm.weight.shape


def test_a_smaller_model_is_refused() -> None:
    with pytest.raises(ValueError, match="3 observation and 1 action dims instead of 5 and 3"):
        Growth(OLD_OBS, OLD_ACTIONS, (3,), (1,), (1,), ((),))
