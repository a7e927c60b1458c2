"""What the batched search promises besides being that of the oracle."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch
from helpers.random_model import ACTION_DIM, SIZES, RandomModel, inputs, sized
from torch.utils._python_dispatch import TorchDispatchMode

from rllib_ezm.search import (
    RootOutput,
    SearchNoise,
    SearchSettings,
    StepOutput,
    draw_noise,
    gumbel_search,
    sequential_halving_schedule,
)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class BanditModel:
    """The first action earns `-|a - target|^2`; nothing else is worth anything."""

    def __init__(self, target: torch.Tensor, mean: torch.Tensor) -> None:
        self.target, self.mean = target, mean

    def root(self) -> RootOutput:
        batch = self.target.shape[0]
        rows = torch.arange(batch, dtype=torch.float32)
        latent = torch.stack([rows, torch.ones(batch)], dim=-1)
        return RootOutput(latent, torch.zeros(batch), self.mean, torch.full_like(self.mean, -1.0))

    def step(
        self, latent: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor
    ) -> StepOutput:
        rows, at_root = latent[:, 0].long(), latent[:, 1]
        reward = -(action - self.target[rows]).square().sum(-1) * at_root
        after = torch.stack([latent[:, 0], torch.zeros_like(at_root)], dim=-1)
        return StepOutput(after, self.mean[rows], reward, torch.zeros_like(reward))

    def policy(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return features, torch.full_like(features, -1.0)


@pytest.mark.parametrize("sizes", SIZES)
def test_one_model_call_per_round(sizes: tuple[int, int]) -> None:
    search = sized(*sizes)
    model = RandomModel(seed=2)
    root, task_ids, mask, noise = inputs(model, 3, 2, search)
    gumbel_search(model, root, task_ids, mask, search, noise)
    assert [len(call) for call in model.calls] == [
        3 * r.num_visits for r in sequential_halving_schedule(*sizes)
    ]


def test_paper_sizes_make_four_model_calls() -> None:
    model = RandomModel(seed=2)
    root, task_ids, mask, noise = inputs(model, 1, 2, SearchSettings())
    gumbel_search(model, root, task_ids, mask, SearchSettings(), noise)
    assert [len(call) for call in model.calls] == [16, 8, 4, 4]


@pytest.mark.parametrize("root_prior", ["uniform", "policy"])
def test_masked_dimensions_are_exactly_zero(root_prior: str) -> None:
    search = SearchSettings(root_prior=root_prior, use_gumbel_noise=True)
    model = RandomModel(seed=3)
    root, task_ids, mask, noise = inputs(model, 64, 3, search)
    mask[:, 3] = 0
    found = gumbel_search(model, root, task_ids, mask, search, noise)
    hidden = mask == 0
    assert not found.action[hidden].any()
    assert not found.candidates.transpose(1, 2)[hidden].any()
    assert not model.actions(64).transpose(1, 2)[hidden].any()
    assert found.candidates.transpose(1, 2)[~hidden].abs().min() > 0


@pytest.mark.parametrize(("wide_candidates", "scales"), [(True, [1.0, 3.0]), (False, [1.0, 1.0])])
def test_candidate_deviations(wide_candidates: bool, scales: list[float]) -> None:
    """4 candidates and each node's child 0 have k = 1, the others k = 3 unless evaluating."""
    search = SearchSettings(wide_candidates=wide_candidates)
    model = RandomModel(seed=4)
    root, task_ids, _, noise = inputs(model, 2, 4, search)
    found = gumbel_search(model, root, task_ids, torch.ones(2, ACTION_DIM), search, noise)
    k = torch.tensor([scales[0]] * 4 + [scales[1]] * 12).unsqueeze(-1)
    pre_tanh = root.mean[:, None] + k * root.log_std[:, None].exp() * noise.root
    torch.testing.assert_close(found.candidates, torch.tanh(pre_tanh).clamp(-0.999, 0.999))
    actions = model.actions(2)
    opened = found.tree.children.nonzero().tolist()
    assert len(opened) == 2 * (32 - 16)
    assert {slot for _, _, slot in opened} == {0, 1}
    for row, node, slot in opened:
        mean, log_std = model.policy(found.tree.latents[row, node])
        child = found.tree.children[row, node, slot]
        pre_tanh = mean + scales[slot] * log_std.exp() * noise.children[row, child - 1 - 16]
        expected = torch.tanh(pre_tanh).clamp(-0.999, 0.999)
        torch.testing.assert_close(actions[row, child - 1], expected)


@pytest.mark.parametrize("sizes", [(32, 16), (16, 8), (50, 16), (64, 4)])
def test_search_finds_the_best_arm_of_a_bandit(sizes: tuple[int, int]) -> None:
    torch.manual_seed(0)
    batch = 50
    model = BanditModel(torch.rand(batch, 3) * 1.6 - 0.8, torch.zeros(batch, 3))
    task_ids = torch.zeros(batch, dtype=torch.int64)
    found = gumbel_search(model, model.root(), task_ids, torch.ones(batch, 3), sized(*sizes))
    distance = (found.candidates - model.target[:, None]).square().sum(-1)
    rows = torch.arange(batch)
    torch.testing.assert_close(found.action, found.candidates[rows, distance.argmin(-1)])
    assert (found.value > -distance.mean(-1)).all()


def test_gumbel_noise_makes_the_search_explore() -> None:
    """With equal arms the choice is the first without noise, and spreads with it."""
    batch = 200
    model = BanditModel(torch.zeros(batch, 2), torch.zeros(batch, 2))
    task_ids = torch.zeros(batch, dtype=torch.int64)
    mask = torch.zeros(batch, 2)

    def visited_most(use_gumbel_noise: bool) -> torch.Tensor:
        search = sized(8, 4, use_gumbel_noise=use_gumbel_noise)
        generator = torch.Generator().manual_seed(0)
        found = gumbel_search(model, model.root(), task_ids, mask, search, generator=generator)
        return found.scores.argmax(-1)

    assert visited_most(False).tolist() == [0] * batch
    assert (visited_most(True).bincount(minlength=4) > batch / 8).all()


class _CountDispatches(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ops[str(func)] += 1
        return func(*args, **(kwargs or {}))


def dispatches(batch: int, search: SearchSettings) -> Counter[str]:
    model = RandomModel(seed=5)
    root, task_ids, mask, _ = inputs(model, batch, 5, search)
    generator = torch.Generator().manual_seed(0)
    with _CountDispatches() as count:
        gumbel_search(model, root, task_ids, mask, search, generator=generator)
    return count.ops


def test_dispatches_are_few_and_the_same_for_any_batch() -> None:
    """A single root saves the copies of a few `expand`s, nothing else depends on the batch."""
    one, two, many = (dispatches(batch, SearchSettings()) for batch in (1, 2, 512))
    assert two == many
    assert one.total() <= many.total() <= 750


@pytest.mark.parametrize("root_prior", ["uniform", "policy"])
def test_nothing_is_read_back_to_the_host(root_prior: str) -> None:
    """Meta tensors have no data: a search that looks at a value cannot run on them."""
    search = SearchSettings(root_prior=root_prior, use_gumbel_noise=True)
    model = RandomModel(seed=6)
    root, task_ids, mask, _ = inputs(model, 3, 6, search)
    found = gumbel_search(
        model.to("meta"),
        RootOutput(*(tensor.to("meta") for tensor in root)),
        task_ids.to("meta"),
        mask.to("meta"),
        search,
    )
    assert found.action.shape == (3, ACTION_DIM)
    assert found.action.device.type == "meta"


def test_statistics_of_a_bfloat16_model_are_float32() -> None:
    model = RandomModel(seed=7, dtype=torch.bfloat16)
    search = SearchSettings()

    class MixedPrecision(RandomModel):
        def step(
            self, latent: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor
        ) -> StepOutput:
            assert latent.dtype == torch.bfloat16
            assert action.dtype == torch.float32
            return super().step(latent, action.bfloat16(), task_ids)

    model = MixedPrecision(seed=7, dtype=torch.bfloat16)
    found = gumbel_search(
        model, model.root(4), torch.zeros(4).long(), torch.ones(4, ACTION_DIM), search
    )
    assert found.tree.latents.dtype == torch.bfloat16
    assert {found.value.dtype, found.scores.dtype, found.action.dtype} == {torch.float32}
    assert torch.isfinite(found.value).all()
    assert found.tree.visits[:, 0].tolist() == [33.0] * 4


def test_the_generator_decides_the_noise() -> None:
    search = SearchSettings(use_gumbel_noise=True)

    def draw(seed: int) -> SearchNoise:
        return draw_noise(2, 3, search, "cpu", generator=torch.Generator().manual_seed(seed))

    for same, other, again in zip(draw(0), draw(1), draw(0), strict=True):
        assert torch.equal(same, again)
        assert not torch.equal(same, other)
    quiet = dataclasses.replace(search, use_gumbel_noise=False)
    assert not draw_noise(2, 3, quiet, "cpu").gumbel.any()


def test_search_keeps_no_gradient() -> None:
    model = RandomModel(seed=8)
    model.reward.requires_grad_()
    root, task_ids, mask, noise = inputs(model, 2, 8, SearchSettings())
    found = gumbel_search(model, root, task_ids, mask, SearchSettings(), noise)
    assert not found.value.requires_grad
    assert (found.value * model.reward.sum()).sum().requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_simulations": 0}, "num_simulations=0 must be an integer >= 1"),
        ({"num_candidates": 0}, "num_candidates=0"),
        ({"policy_candidates": 17}, "from 0 to num_candidates=16"),
        (
            {"policy_candidates": -1},
            "integer >= 0; at most num_candidates",
        ),
        ({"wide_std_factor": 0.0}, "wide_std_factor=0.0"),
        ({"root_prior": "network"}, "must be one of"),
        ({"discount": 1.5}, "discount=1.5"),
        ({"c_visit": -1.0}, "c_visit=-1.0"),
        ({"c_scale": -0.1}, "c_scale=-0.1"),
        ({"minmax_delta": 0.0}, "minmax_delta=0.0"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchSettings(**change)


def test_wrong_shapes_are_named() -> None:
    model = RandomModel(seed=9)
    root, task_ids, mask, noise = inputs(model, 3, 9, SearchSettings())
    with pytest.raises(ValueError, match=r"action_mask has shape \(2, 4\), pass \(3, 4\)"):
        gumbel_search(model, root, task_ids, mask[:2], SearchSettings(), noise)
    with pytest.raises(ValueError, match=r"replayed_action has shape \(3, 2\), pass \(3, 4\)"):
        gumbel_search(
            model, root, task_ids, mask, SearchSettings(), noise, replayed_action=mask[:, :2]
        )
    with pytest.raises(ValueError, match=r"children has shape \(3, 16, 4\), pass \(3, 34, 4\)"):
        gumbel_search(model, root, task_ids, mask, sized(50, 16), noise)
    with pytest.raises(ValueError, match="not both"):
        gumbel_search(model, root, task_ids, mask, SearchSettings(), noise, torch.Generator())
