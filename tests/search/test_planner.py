from __future__ import annotations

import pytest
import torch
from helpers.tiny_model import ACTION_MASK, OBS_DIM, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from rllib_ezm.models.policy_distribution import mode_squashed
from rllib_ezm.search import SearchSettings, draw_noise
from rllib_ezm.search.gumbel_planner import GumbelPlanner
from rllib_ezm.search.planner import draw_heads, reduce_values

CPU = torch.device("cpu")
BATCH = 6
TASK_IDS = torch.arange(BATCH) % 2
SETTINGS = SearchSettings(num_simulations=8, num_candidates=4, policy_candidates=2)


def make_planner(seed=0, num_value_heads=3, **options):
    return GumbelPlanner(tiny_model(seed, num_value_heads=num_value_heads), ACTION_MASK, **options)


def observe(seed=0):
    return torch.randn(BATCH, OBS_DIM, generator=torch.Generator().manual_seed(seed))


# Three heads, two states.
VALUES = torch.tensor([[1.0, 4.0], [3.0, -6.0], [2.0, 8.0]])


def test_reductions_by_hand():
    assert reduce_values(VALUES, "mean").tolist() == [2.0, 2.0]
    assert reduce_values(VALUES, "min").tolist() == [1.0, -6.0]
    assert reduce_values(VALUES[1:], "random_pair").tolist() == [2.0, -6.0]
    assert reduce_values(VALUES[:1], "random_pair").tolist() == [1.0, 4.0]


def test_clipping_comes_before_the_reduction():
    # Column 1 clipped at 0: (4 + 0 + 8) / 3 = 4, where clipping the mean would leave 2.
    assert reduce_values(VALUES, "mean", clip_min=0.0).tolist() == [2.0, 4.0]
    assert reduce_values(VALUES, "min", clip_min=0.0).tolist() == [1.0, 0.0]
    assert reduce_values(VALUES[:2], "random_pair", clip_min=0.0).tolist() == [1.0, 0.0]


def test_a_random_pair_is_any_two_heads():
    generator = torch.Generator().manual_seed(0)
    pairs = {
        tuple(sorted(draw_heads(3, "random_pair", CPU, generator, as_numbers=True)))
        for _ in range(60)
    }
    assert pairs == {(0, 1), (0, 2), (1, 2)}
    assert draw_heads(1, "random_pair", CPU) == (0,)


@pytest.mark.parametrize("reduction", ["min", "mean"])
def test_all_heads_are_read_and_nothing_is_drawn(reduction):
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert draw_heads(5, reduction, CPU, generator) == (0, 1, 2, 3, 4)
    assert torch.equal(generator.get_state(), before)


def test_the_default_is_the_pair_that_was_drawn_before_it_had_this_name():
    planner, observations = make_planner(num_value_heads=5), observe()
    torch.manual_seed(7)
    root = planner.root(observations, TASK_IDS).root
    torch.manual_seed(7)
    pair = torch.randperm(5)[:2]
    model, embedding = planner.model, planner.model.embed(TASK_IDS)
    logits = model.predict(root.latent, embedding, root=True).value_logits
    expected = model.value_support.decode(logits)[pair].amin(0)
    torch.testing.assert_close(root.value, expected)


def test_the_minimum_is_that_of_all_heads_at_the_root_and_in_the_search():
    planner = make_planner(value_reduction="min", num_value_heads=5)
    model, embedding = planner.model, planner.model.embed(TASK_IDS)
    root = planner.root(observe(), TASK_IDS).root
    logits = model.predict(root.latent, embedding, root=True).value_logits
    values = model.value_support.decode(logits)
    assert values.shape[0] == 5
    torch.testing.assert_close(root.value, values.amin(0))
    action = torch.rand(BATCH, 3) * ACTION_MASK[TASK_IDS]
    step = planner.model_in_search().step(root.latent, action, TASK_IDS)
    logits = model.predict(model.dynamics(root.latent, action, embedding), embedding).value_logits
    torch.testing.assert_close(step.value, model.value_support.decode(logits).amin(0))


@pytest.mark.parametrize("num_heads", [1, 3])
def test_an_unknown_reduction_is_refused(num_heads):
    with pytest.raises(
        ValueError, match=r"'max' is unknown; use one of \('random_pair', 'min', 'mean'\)"
    ):
        draw_heads(num_heads, "max", CPU)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="'fp8' is unknown; use one of"):
        make_planner(precision="fp8")


def test_root_inference_is_the_model_with_reduced_values():
    planner, observations = make_planner(value_reduction="mean"), observe()
    model = planner.model
    root, variance = planner.root(observations, TASK_IDS)
    embedding = model.embed(TASK_IDS)
    latent = model.represent(observations, TASK_IDS, embedding)
    prediction = model.predict(latent, embedding, root=True)
    values = model.value_support.decode(prediction.value_logits)
    torch.testing.assert_close(root.latent, latent)
    torch.testing.assert_close(root.value, values.mean(0))
    torch.testing.assert_close(root.mean, prediction.mean)
    torch.testing.assert_close(root.log_std, prediction.log_std)
    # Unbiased: divided by V - 1 = 2.
    expected = (values - values.mean(0)).square().sum(0) / 2
    torch.testing.assert_close(variance, expected)


def test_variance_is_that_of_unclipped_values():
    free, clipped = make_planner(), make_planner(value_clip_min=1e3)
    assert torch.equal(
        free.root(observe(), TASK_IDS).value_variance,
        clipped.root(observe(), TASK_IDS).value_variance,
    )
    assert (clipped.root(observe(), TASK_IDS).root.value == 1e3).all()


def test_one_head_has_no_variance():
    planner = GumbelPlanner(tiny_model(num_value_heads=1), ACTION_MASK)
    assert torch.equal(planner.root(observe(), TASK_IDS).value_variance, torch.zeros(BATCH))


def test_step_is_the_model_with_decoded_rewards():
    planner = make_planner(value_reduction="mean")
    model, latent = planner.model, torch.randn(BATCH, 8)
    action = torch.rand(BATCH, 3) * ACTION_MASK[TASK_IDS]
    step = planner.model_in_search().step(latent, action, TASK_IDS)
    embedding = model.embed(TASK_IDS)
    next_latent = model.dynamics(latent, action, embedding)
    reward = model.reward_support.decode(model.reward(latent, action, embedding))
    value = model.value_support.decode(model.predict(next_latent, embedding).value_logits).mean(0)
    torch.testing.assert_close(step.latent, next_latent)
    torch.testing.assert_close(step.reward, reward)
    torch.testing.assert_close(step.value, value)


def test_without_settings_the_plan_is_the_squashed_policy_mean():
    planner = make_planner()
    root = planner.root(observe(), TASK_IDS).root
    plan = planner.plan(root, TASK_IDS, None)
    mask = ACTION_MASK[TASK_IDS]
    assert torch.equal(plan.action, mode_squashed(root.mean, mask))
    assert (plan.action[mask == 0] == 0).all()
    assert plan.action[mask == 1].abs().min() > 0
    assert plan.value is root.value
    assert plan.candidates is plan.weights is None


def test_plan_shapes_ranges_and_masks():
    planner = make_planner()
    plan = planner.plan(planner.root(observe(), TASK_IDS).root, TASK_IDS, SETTINGS)
    assert plan.action.shape == (BATCH, 3)
    assert plan.value.shape == (BATCH,)
    assert plan.candidates.shape == (BATCH, 4, 3)
    assert plan.weights.shape == (BATCH, 4)
    torch.testing.assert_close(plan.weights.sum(-1), torch.ones(BATCH))
    assert plan.candidates.abs().max() <= 0.999
    masked = ACTION_MASK[TASK_IDS] == 0
    assert (plan.action[masked] == 0).all()
    assert (plan.candidates[masked[:, None].expand(-1, 4, -1)] == 0).all()
    assert (plan.action[:, None] == plan.candidates).all(-1).any(-1).all()


def test_given_noise_or_generator_makes_a_plan_reproducible():
    planner = make_planner(value_reduction="mean")
    root = planner.root(observe(), TASK_IDS).root

    def action(seed=None, noise=None):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return planner.plan(root, TASK_IDS, SETTINGS, noise=noise, generator=generator).action

    assert torch.equal(action(seed=1), action(seed=1))
    assert not torch.equal(action(seed=1), action(seed=2))
    noise = draw_noise(BATCH, 3, SETTINGS, "cpu")
    assert torch.equal(action(noise=noise), action(noise=noise))


@pytest.mark.parametrize("replayed", [False, True])
def test_roots_searched_in_chunks_find_the_same(replayed):
    planner = make_planner(value_reduction="mean")
    root = planner.root(observe(), TASK_IDS).root
    noise = draw_noise(BATCH, 3, SETTINGS, "cpu")
    actions = torch.rand(BATCH, 3) if replayed else None
    together = planner.plan(root, TASK_IDS, SETTINGS, noise=noise, replayed_action=actions)
    planner.chunk_size = 4
    in_chunks = planner.plan(root, TASK_IDS, SETTINGS, noise=noise, replayed_action=actions)
    for x, y in zip(together, in_chunks, strict=True):
        torch.testing.assert_close(x, y)


class CountDispatches(TorchDispatchMode):
    """Counts the operators dispatched while it is active."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_search_of_the_paper_s_depth_dispatches_at_most_1000_operators_at_any_batch():
    model, settings = tiny_model(num_blocks=3, num_value_heads=5), SearchSettings()
    planner = GumbelPlanner(model, ACTION_MASK, chunk_size=512)
    counts = []
    for batch in (1, 14, 512):
        task_ids = torch.arange(batch) % 2
        root = planner.root(torch.randn(batch, OBS_DIM), task_ids).root
        noise = draw_noise(batch, 3, settings, "cpu")
        with CountDispatches() as counter:
            planner.plan(root, task_ids, settings, noise=noise)
        counts.append(counter.count)
    assert max(counts) <= 1000
    assert max(counts) <= 1.01 * min(counts)


def test_noise_and_generator_together_are_refused():
    planner = make_planner()
    root = planner.root(observe(), TASK_IDS).root
    noise = draw_noise(BATCH, 3, SETTINGS, "cpu")
    with pytest.raises(ValueError, match="not both"):
        planner.plan(root, TASK_IDS, SETTINGS, noise=noise, generator=torch.Generator())


def test_plans_follow_the_weights():
    planner, other = make_planner(), make_planner(seed=1)
    before = planner.root(observe(), TASK_IDS).root
    planner.model.load_state_dict(other.model.state_dict())
    after = planner.root(observe(), TASK_IDS).root
    assert not torch.equal(before.latent, after.latent)
    assert torch.equal(after.latent, other.root(observe(), TASK_IDS).root.latent)


def test_planning_builds_no_autograd_graph():
    planner = make_planner()
    root, variance = planner.root(observe(), TASK_IDS)
    plan = planner.plan(root, TASK_IDS, SETTINGS)
    assert not any(x.requires_grad for x in (*root, variance, *plan))


def test_bf16_plans_are_fp32_finite_and_near_the_exact_values():
    exact = make_planner(value_reduction="mean")
    rounded = make_planner(value_reduction="mean", precision="bfloat16")
    root, near = exact.root(observe(), TASK_IDS).root, rounded.root(observe(), TASK_IDS).root
    assert near.latent.dtype == torch.bfloat16
    assert near.value.dtype == near.mean.dtype == near.log_std.dtype == torch.float32
    for x, y in zip(root, near, strict=True):
        assert (x - y).abs().mean() < 0.05 * x.abs().mean() + 0.02
    noise = draw_noise(BATCH, 3, SETTINGS, "cpu")
    values = [
        planner.plan(start, TASK_IDS, SETTINGS, noise=noise).value
        for planner, start in ((exact, root), (rounded, near))
    ]
    assert values[1].dtype == torch.float32
    # Values of the tiny model have a spread of several units.
    torch.testing.assert_close(values[1], values[0], atol=0.5, rtol=0.1)


def test_padded_observation_dimensions_do_not_change_the_plan():
    planner, observations = make_planner(value_reduction="mean"), observe()
    garbage = observations + 1e5 * (1 - planner.model.normalizer.observation_mask[TASK_IDS])
    roots = [planner.root(x, TASK_IDS).root for x in (observations, garbage)]
    for clean, dirty in zip(*roots, strict=True):  # not bit for bit: a busy machine adds otherwise
        torch.testing.assert_close(dirty, clean, rtol=1e-5, atol=1e-6)
