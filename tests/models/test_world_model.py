from __future__ import annotations

import dataclasses
import runpy
import sys

import pytest
import torch
from helpers.tiny_model import ACTION_DIM, NUM_TASKS, OBS_DIM, tiny_model, tiny_spec

from rllib_ezm.models import EMBEDDING_SITES, WorldModel, WorldModelSpec

# Parameters at (D, A, T) of the two HumanoidBench suites, as the released code has them.
HARD = {
    "representation": 1_736_704,
    "dynamics": 2_202_490,
    "reward": 2_769_843,
    "value_policy": 6_217_337,
    "projector": 2_104_832,
    "predictor": 1_052_160,
    "task_embedding": 1_792,
}
MEDIUM = {
    **HARD,
    "representation": 1_672_192,
    "dynamics": 2_180_902,
    "reward": 2_767_155,
    "value_policy": 6_174_245,
    "task_embedding": 1_152,
}


def count(*parts):
    return sum(p.numel() for part in parts for p in part.parameters())


@pytest.mark.parametrize(
    ("sizes", "expected", "total"),
    [((177, 61, 14), HARD, 16_085_158), ((51, 19, 9), MEDIUM, 15_952_638)],
    ids=["hard", "medium"],
)
def test_parameter_counts_are_those_of_the_paper(sizes, expected, total):
    model = WorldModel(WorldModelSpec(*sizes))
    assert model.parameter_counts() == expected
    assert count(model) == sum(expected.values()) == total


def test_parameter_counts_inside_the_towers():
    model = WorldModel(WorldModelSpec(177, 61, 14))
    reward, value_policy = model.reward_model, model.value_policy_model
    assert count(reward.action_encoder) == 12_288
    assert count(reward.trunk.norm) == 1_408
    assert count(reward.trunk.mix, reward.trunk.project) == 623_616
    assert count(reward.trunk.blocks) == 1_579_008
    assert count(reward.head) == 553_523
    assert count(value_policy.trunk) == 2_466_560
    assert count(value_policy.value_heads) == 5 * 619_059
    assert count(value_policy.policy_head) == 655_482


def test_main_prints_the_counts_and_ends_in_the_total(capsys, monkeypatch):
    argv = ["models", "--obs-dim", "177", "--action-dim", "61", "--tasks", "14"]
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_module("rllib_ezm.models", run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:-1]] == [[k, str(v)] for k, v in HARD.items()]
    assert lines[-1] == "total 16085158"


def test_main_takes_every_size(capsys, monkeypatch):
    argv = ["models", "--obs-dim", "5", "--action-dim", "3", "--tasks", "2", "--num-bins", "11"]
    spec = tiny_spec()
    for name in ("latent_dim", "embedding_dim", "action_embedding_dim", "num_blocks"):
        argv += [f"--{name.replace('_', '-')}", str(getattr(spec, name))]
    for name in ("num_value_heads", "head_dim", "projection_dim"):
        argv += [f"--{name.replace('_', '-')}", str(getattr(spec, name))]
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_module("rllib_ezm.models", run_name="__main__")
    assert capsys.readouterr().out.splitlines()[-1] == f"total {count(WorldModel(spec))}"


def test_each_embedding_switch_shrinks_its_inputs_by_the_embedding():
    full = tiny_model()
    E = full.spec.embedding_dim
    for site in EMBEDDING_SITES:
        left = tuple(s for s in EMBEDDING_SITES if s != site)
        model = tiny_model(task_embedding=left)
        for at, width in (
            ("rep", lambda m: m.representation[0].linear.in_features),
            ("dyn", lambda m: m.dynamics_model.mix.in_features),
            ("rew", lambda m: m.reward_model.trunk.mix.in_features),
            ("rew", lambda m: m.reward_model.action_encoder.linear.in_features),
            ("vp", lambda m: m.value_policy_model.trunk[1].normalized_shape[0]),
        ):
            assert width(full) - width(model) == (E if at == site else 0), (site, at)
        shrunk = {"rep": "representation", "dyn": "dynamics", "rew": "reward", "vp": "value_policy"}
        counts, full_counts = model.parameter_counts(), full.parameter_counts()
        differing = [name for name in counts if counts[name] != full_counts[name]]
        assert differing == [shrunk[site]]
        assert counts[shrunk[site]] < full_counts[shrunk[site]]


@pytest.mark.parametrize("sites", [(), ("rep",), ("dyn",), ("rew",), ("vp",), EMBEDDING_SITES])
def test_the_task_embedding_reaches_exactly_the_sites_that_are_on(sites):
    model = tiny_model(task_embedding=sites)
    task_ids = torch.tensor([0, 1, 1])
    latent, action = torch.randn(3, 8), torch.randn(3, ACTION_DIM)

    def reached(call):
        embedding = model.embed(task_ids)
        out = call(embedding)
        return torch.autograd.grad(out.sum(), embedding, allow_unused=True)[0] is not None

    calls = {
        "rep": lambda e: model.represent(torch.randn(3, OBS_DIM), task_ids, e),
        "dyn": lambda e: model.dynamics(latent, action, e),
        "rew": lambda e: model.reward(latent, action, e),
        "vp": lambda e: model.predict(latent, e).value_logits,
    }
    assert tuple(site for site in EMBEDDING_SITES if reached(calls[site])) == sites


def test_output_shapes():
    model, rows = tiny_model(), 4
    task_ids = torch.tensor([0, 1, 1, 0])
    embedding = model.embed(task_ids)
    latent = model.represent(torch.randn(rows, OBS_DIM), task_ids, embedding)
    action = torch.randn(rows, ACTION_DIM)
    prediction = model.predict(latent, embedding)
    assert embedding.shape == (rows, 4)
    assert latent.shape == model.dynamics(latent, action, embedding).shape == (rows, 8)
    assert model.reward(latent, action, embedding).shape == (rows, 11)
    assert prediction.value_logits.shape == (3, rows, 11)
    assert prediction.mean.shape == prediction.log_std.shape == (rows, ACTION_DIM)
    for with_predictor in (True, False):
        assert model.project(latent, with_predictor=with_predictor).shape == (rows, 8)


def test_task_embedding_rows_have_norm_at_most_one():
    model = tiny_model(embedding_dim=2)
    with torch.no_grad():
        model.task_embedding.weight.copy_(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
    # |(3, 4)| = 5 shrinks to (0.6, 0.8); |(0.3, 0.4)| = 0.5 stays.
    expected = torch.tensor([[0.3, 0.4], [0.6, 0.8]])
    torch.testing.assert_close(model.embed(torch.tensor([1, 0])), expected)


def test_a_new_model_predicts_reward_zero_and_the_narrow_policy_at_zero():
    torch.manual_seed(0)
    model = WorldModel(tiny_spec())
    embedding = model.embed(torch.tensor([0, 1]))
    latent = torch.randn(2, 8)
    reward_logits = model.reward(latent, torch.randn(2, ACTION_DIM), embedding)
    assert torch.equal(reward_logits, torch.zeros(2, 11))
    assert model.reward_support.decode(reward_logits).abs().max() < 1e-6
    prediction = model.predict(latent, embedding)
    assert torch.equal(prediction.mean, torch.zeros(2, ACTION_DIM))
    # log sigma = -10 + 6 (tanh 0 + 1) = -4.
    assert torch.equal(prediction.log_std, torch.full((2, ACTION_DIM), -4.0))
    assert not torch.equal(prediction.value_logits[0], prediction.value_logits[1])


def test_reward_is_a_path_of_its_own():
    model = tiny_model()
    embedding = model.embed(torch.tensor([0, 1]))
    logits = model.reward(torch.randn(2, 8), torch.randn(2, ACTION_DIM), embedding)
    others = [*model.dynamics_model.parameters(), *model.value_policy_model.parameters()]
    gradients = torch.autograd.grad(logits.square().sum(), others, allow_unused=True)
    assert all(gradient is None for gradient in gradients)


def test_log_std_stays_in_its_configured_bounds():
    model = tiny_model(log_std_min=-3.0, log_std_max=-1.0)
    with torch.no_grad():
        model.value_policy_model.policy_head.output.bias[ACTION_DIM] = 100.0
        model.value_policy_model.policy_head.output.bias[ACTION_DIM + 1] = -100.0
    log_std = model.predict(torch.randn(2, 8), model.embed(torch.tensor([0, 1]))).log_std
    assert log_std[:, 0].tolist() == [-1.0, -1.0]
    assert log_std[:, 1].tolist() == [-3.0, -3.0]


def test_state_dict_restores_the_model():
    model, other = tiny_model(seed=0), tiny_model(seed=1)
    task_ids = torch.tensor([0, 1])
    observations = torch.randn(2, OBS_DIM)
    model.normalizer.update(observations, task_ids)
    other.load_state_dict(model.state_dict())
    latents = [m.represent(observations, task_ids, m.embed(task_ids)) for m in (model, other)]
    assert torch.equal(*latents)


def test_without_a_mask_every_task_owns_every_observation_dimension():
    model = WorldModel(tiny_spec())
    assert torch.equal(model.normalizer.observation_mask, torch.ones(NUM_TASKS, OBS_DIM))


SIZES = [
    field.name
    for field in dataclasses.fields(WorldModelSpec)
    if isinstance(getattr(tiny_spec(), field.name), int) and field.name != "num_bins"
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *[({name: 0}, f"{name}=0 must be an integer >= 1") for name in SIZES],
        ({"task_embedding": ("rep", "trunk")}, "'trunk'.* must be a list of any of"),
        ({"log_std_min": 2.0}, "log_std_min 2.0 must be below log_std_max 2.0"),
    ],
    ids=[*SIZES, "task_embedding", "log_std"],
)
def test_wrong_sizes_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        tiny_spec(**change)
