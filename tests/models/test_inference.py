"""The folded view computes what the training network computes."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.tiny_model import ACTION_DIM, ACTION_MASK, NUM_TASKS, OBS_DIM, tiny_model
from oracles.plain_search_model import PlainSearchModel

from rllib_ezm.models.inference import FoldedModel
from rllib_ezm.search import SearchSettings, draw_noise, gumbel_search
from rllib_ezm.search.gumbel_planner import GumbelPlanner

ROWS = 10
TASK_IDS = torch.arange(ROWS) % NUM_TASKS
SITES = [
    sites
    for count in range(5)
    for sites in itertools.combinations(("rep", "dyn", "rew", "vp"), count)
]


def trained_looking(seed=0, **changes):
    """A model none of whose parameters or statistics has its initial value."""
    model = tiny_model(seed, **changes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and name != "normalizer.observation_mask":
                tensor.mul_(torch.rand(tensor.shape, generator=generator) + 0.5)
                tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.2)
    return model.double()


def random_rows(*shape, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("sites", SITES, ids="+".join)
@torch.no_grad()
def test_every_output_equals_the_training_network(sites):
    model = trained_looking(task_embedding=sites)
    view = FoldedModel(model, torch.float64)
    observations, latent = random_rows(ROWS, OBS_DIM), random_rows(ROWS, 8)
    action = torch.tanh(random_rows(ROWS, ACTION_DIM))
    embedding = model.embed(TASK_IDS)
    features = view.features(latent, view.tasks(TASK_IDS))
    for root in (False, True):
        prediction = model.predict(latent, embedding, root=root)
        mean, log_std = view.policy(features, root=root)
        torch.testing.assert_close(mean, prediction.mean)
        torch.testing.assert_close(log_std, prediction.log_std)
        for heads in ((0, 1, 2), (2, 0)):
            logits = torch.stack(view.value(features, heads, root=root))
            expected_logits = prediction.value_logits[list(heads)]
            torch.testing.assert_close(logits, expected_logits, rtol=1e-10, atol=1e-10)
            drawn = torch.stack(view.value(features, torch.tensor(heads), root=root))
            torch.testing.assert_close(drawn, expected_logits, rtol=1e-10, atol=1e-10)
    found = (
        view.represent(observations, TASK_IDS),
        view.reward(latent, action, view.tasks(TASK_IDS)),
        view.dynamics(latent, action, view.tasks(TASK_IDS)),
    )
    expected = (
        model.represent(observations, TASK_IDS, embedding),
        model.reward(latent, action, embedding),
        model.dynamics(latent, action, embedding),
    )
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_in_fp32_the_view_is_within_1e_5():
    model = trained_looking().float()
    view = FoldedModel(model)
    latent, action = random_rows(ROWS, 8).float(), random_rows(ROWS, ACTION_DIM).float().tanh()
    embedding = model.embed(TASK_IDS)
    expected = model.dynamics(latent, action, embedding)
    found = view.dynamics(latent, action, view.tasks(TASK_IDS))
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    logits = model.predict(expected, embedding).value_logits
    folded = torch.stack(view.value(view.features(found, view.tasks(TASK_IDS)), (0, 1, 2)))
    assert (folded - logits).norm() <= 1e-5 * logits.norm()


def test_a_search_chooses_the_action_that_the_training_network_chooses():
    settings, batch = SearchSettings(num_simulations=16, num_candidates=8), 64
    for seed in range(5):
        model = trained_looking(seed).float()
        task_ids = torch.arange(batch) % NUM_TASKS
        observations = random_rows(batch, OBS_DIM, seed=seed).float()
        plain = PlainSearchModel(model)
        noise = draw_noise(batch, ACTION_DIM, settings, "cpu")
        with torch.no_grad():
            root = plain.root(observations, task_ids)
        mask = ACTION_MASK[task_ids]
        expected = gumbel_search(plain, root, task_ids, mask, settings, noise)
        planner = GumbelPlanner(model, ACTION_MASK, value_reduction="mean")
        own_root = planner.root(observations, task_ids).root
        found = planner.plan(own_root, task_ids, settings, noise=noise)
        torch.testing.assert_close(found.action, expected.action, rtol=0.0, atol=1e-3)
        torch.testing.assert_close(found.value, expected.value, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_refresh_follows_parameters_and_statistics():
    model = trained_looking()
    view = FoldedModel(model, torch.float64)
    features = view.features(random_rows(ROWS, 8), view.tasks(TASK_IDS))
    heads = model.value_policy_model.value_heads

    def values():
        return [view.value(features, (0,), root=root)[0] for root in (False, True)]

    before = values()
    view.refresh()
    assert all(map(torch.equal, values(), before))
    for tensor, moves in (
        (heads.first.weight, [True, True]),
        (heads.first_norm.running_var, [True, False]),
        (heads.first_norm.root_var, [False, True]),
    ):
        tensor.mul_(1.5)
        view.refresh()
        after = values()
        assert [not torch.allclose(x, y) for x, y in zip(after, before, strict=True)] == moves
        before = after
