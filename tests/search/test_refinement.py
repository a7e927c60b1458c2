"""Candidates move uphill in the model's estimate, and only those that are to."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.random_model import ACTION_DIM, RandomModel, masks

from rllib_ezm.search import RootOutput, SearchSettings, StepOutput, draw_noise, gumbel_search
from rllib_ezm.search.refinement import refine

SETTINGS = SearchSettings(
    num_simulations=4,
    num_candidates=4,
    policy_candidates=2,
    refined_candidates=3,
    refinement_size=0.25,
    discount=0.5,
)


class Slope:
    """Reward `w a` of an action and value `v a` of the state after it."""

    def __init__(self, w: list[float], v: list[float]) -> None:
        self.w, self.v = torch.tensor(w), torch.tensor(v)

    def step(
        self, latent: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor
    ) -> StepOutput:
        return StepOutput(latent, latent, action @ self.w, action @ self.v)

    def policy(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError


def root_of(batch: int, log_std: float) -> RootOutput:
    shape = batch, 2
    return RootOutput(
        torch.zeros(batch, 3), torch.zeros(batch), torch.zeros(shape), torch.full(shape, log_std)
    )


def test_one_step_by_hand():
    # d/da (w + gamma v) a = (1 - 0.5 * 4, 0.5 * 2) = (-1, 1); at a = 0 tanh has slope 1, and
    # the step is 0.25 deviations of 2 in each dimension: u = (-0.5, 0.5).
    model, actions = Slope([1.0, 0.0], [-4.0, 2.0]), torch.zeros(1, 4, 2)
    root = root_of(1, torch.tensor(2.0).log().item())
    moved = refine(model, root, torch.zeros(1).long(), torch.ones(1, 2), SETTINGS, actions)
    expected = torch.tanh(torch.tensor([-0.5, 0.5])).expand(3, 2)
    torch.testing.assert_close(moved[0, :3], expected)
    assert not moved[0, 3].any()


def test_the_length_of_a_step_does_not_depend_on_the_scale_of_the_values():
    root, actions = root_of(1, 0.0), torch.rand(1, 4, 2) - 0.5
    ids, mask = torch.zeros(1).long(), torch.ones(1, 2)
    small, large = (
        refine(Slope([scale, 2 * scale], [0.0, 0.0]), root, ids, mask, SETTINGS, actions)
        for scale in (1e-3, 1e3)
    )
    torch.testing.assert_close(small, large)


def test_padded_dimensions_stay_zero_and_do_not_shorten_the_step():
    mask = torch.tensor([[1.0, 0.0]])
    moved = refine(
        Slope([1.0, 9.0], [0.0, 0.0]),
        root_of(1, 0.0),
        torch.zeros(1).long(),
        mask,
        SETTINGS,
        torch.zeros(1, 4, 2),
    )
    expected = torch.tanh(torch.tensor([0.25, 0.0])).expand(3, 2)
    torch.testing.assert_close(moved[0, :3], expected)


def test_a_flat_model_and_one_without_real_dimensions_move_nothing():
    actions = torch.rand(2, 4, 2) - 0.5
    mask = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    actions = actions * mask[:, None]
    flat = Slope([0.0, 0.0], [0.0, 0.0])
    moved = refine(flat, root_of(2, 0.0), torch.zeros(2).long(), mask, SETTINGS, actions)
    torch.testing.assert_close(moved, actions)


@pytest.mark.parametrize("steps", [1, 3])
def test_within_a_search_refined_candidates_are_worth_more(steps: int) -> None:
    model, batch = RandomModel(seed=0, dtype=torch.float32), 64
    settings = dataclasses.replace(SETTINGS, refinement_steps=steps, refinement_size=0.1)
    plain = dataclasses.replace(settings, refined_candidates=0)
    root, ids, mask = model.root(batch), torch.arange(batch) % 3, masks(batch, 0).float()
    noise = draw_noise(batch, ACTION_DIM, plain, "cpu", generator=torch.Generator().manual_seed(0))

    def estimates(settings: SearchSettings) -> torch.Tensor:
        found = gumbel_search(model, root, ids, mask, settings, noise)
        latent = root.latent.unsqueeze(1).expand(-1, 4, -1).flatten(0, 1)
        step = model.step(latent, found.candidates.flatten(0, 1), ids.repeat_interleave(4))
        assert not found.candidates.requires_grad
        return (step.reward + settings.discount * step.value).view(batch, 4)

    gain = estimates(settings) - estimates(plain)
    has_dims = mask.any(dim=1)
    assert (gain[has_dims, :3] > 0).float().mean() > 0.95
    assert torch.equal(gain[:, 3], torch.zeros(batch))


def test_more_refined_candidates_than_there_are_is_refused():
    with pytest.raises(ValueError, match="refined_candidates=5: use a number from 0"):
        dataclasses.replace(SETTINGS, refined_candidates=5)
