from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.tiny_model import ACTION_MASK, OBS_DIM, tiny_model
from oracles.td_oracle import td_oracle

from rllib_ezm.search import RootOutput, SearchSettings
from rllib_ezm.search.gumbel_planner import GumbelPlanner
from rllib_ezm.update.reanalyzer import Reanalyzer

BATCH, K, N_STEP, DISCOUNT = 6, 2, 3, 0.9
STATES = K + N_STEP + 1
SETTINGS = SearchSettings(num_simulations=4, num_candidates=4, policy_candidates=2)
STORED_VALUE, STORED_ACTION = 1234.5, 7.0  # values no search can return


def make_reanalyzer(ratio=1.0, settings=SETTINGS, **options):
    planner = GumbelPlanner(tiny_model(), ACTION_MASK, value_reduction="mean")
    sizes = {"unroll_steps": K, "td_steps": N_STEP, "discount": DISCOUNT}
    return Reanalyzer(planner, settings, ratio=ratio, **sizes, **options)


def make_batch():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([5, 4, 1, 2, 5, 3])
    step_mask = (torch.arange(STATES - 1) < lengths[:, None]).float()
    return {
        "obs": torch.randn(BATCH, STATES, OBS_DIM, generator=generator),
        "rewards": torch.randn(BATCH, STATES - 1, generator=generator) * step_mask,
        "step_mask": step_mask,
        "terminal": torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0]),
        "task_ids": torch.arange(BATCH) % 2,
        "search_values": torch.full((BATCH, K + 1), STORED_VALUE),
        "search_actions": torch.full((BATCH, K + 1, 3), STORED_ACTION),
    }


def searched_rows(result):
    """Rows that hold fresh targets; each is fresh or stored as a whole."""
    fresh = result.search_value != STORED_VALUE
    fresh_action = (result.best_action != STORED_ACTION).all(-1)
    assert torch.equal(fresh, fresh_action)
    assert torch.equal(fresh.any(1), fresh.all(1))
    return fresh.all(1)


def test_targets_are_those_of_the_pieces_called_by_hand():
    reanalyzer, batch = make_reanalyzer(), make_batch()
    torch.manual_seed(5)
    result = reanalyzer(batch)
    planner, task_ids = reanalyzer.planner, batch["task_ids"]
    roots = [planner.root(batch["obs"][:, i], task_ids) for i in range(STATES)]
    values = torch.stack([inference.root.value for inference in roots], dim=1)
    for b in range(BATCH):
        length = int(batch["step_mask"][b].sum())
        for start in range(min(K, length) + 1):
            expected = td_oracle(
                batch["rewards"][b].tolist(),
                values[b].tolist(),
                num_transitions=length,
                terminated=bool(batch["terminal"][b]),
                discount=DISCOUNT,
                start=start,
                td_steps=N_STEP,
            )
            assert result.td_value[b, start].item() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    variance = torch.stack([inference.value_variance for inference in roots[: K + 1]], dim=1)
    torch.testing.assert_close(result.value_variance, variance)

    # The search, in one call over the states 0..K of each segment, segment by segment. Its roots
    # come from one call over all states: the last bit depends on the rows of a call, and the best
    # of candidates that are worth the same depends on the last bit.
    together = planner.root(batch["obs"].flatten(0, 1), task_ids.repeat_interleave(STATES)).root
    torch.testing.assert_close(together.value, values.flatten())
    rows = [b * STATES + i for b in range(BATCH) for i in range(K + 1)]
    torch.manual_seed(5)
    root = RootOutput(*(part[rows] for part in together))
    plan = planner.plan(root, task_ids.repeat_interleave(K + 1), SETTINGS)
    shape = (BATCH, K + 1)
    assert torch.equal(result.search_value, plan.value.view(shape))
    assert torch.equal(result.best_action, plan.action.view(*shape, 3))
    assert torch.equal(result.candidates, plan.candidates.view(*shape, 4, 3))
    assert torch.equal(result.weights, plan.weights.view(*shape, 4))


def test_full_reanalyze_replaces_every_stored_target():
    result = make_reanalyzer(1.0)(make_batch())
    assert searched_rows(result).all()
    assert result.candidates.shape == (BATCH, K + 1, 4, 3)
    assert result.weights.shape == (BATCH, K + 1, 4)


def test_the_action_taken_in_a_state_is_one_of_its_candidates():
    batch = make_batch()
    actions = batch["actions"] = torch.rand(BATCH, K + 1, 3)
    mask = ACTION_MASK[batch["task_ids"]][:, None]
    torch.manual_seed(0)
    sampled = make_reanalyzer()(batch).candidates
    torch.manual_seed(0)
    candidates = make_reanalyzer(replayed_candidate=True)(batch).candidates
    assert torch.equal(candidates[..., :-1, :], sampled[..., :-1, :])
    assert torch.equal(candidates[..., -1, :], actions * mask)


def test_half_reanalyze_takes_the_actions_of_the_rows_it_searches():
    torch.manual_seed(0)
    batch = make_batch()
    batch["actions"] = torch.full((BATCH, K + 1, 3), 0.5)
    batch["actions"][:, :, 0] = torch.arange(BATCH)[:, None] / BATCH
    settings = dataclasses.replace(SETTINGS, num_candidates=1, policy_candidates=1)
    result = make_reanalyzer(0.5, settings, replayed_candidate=True)(batch)
    fresh = searched_rows(result)
    expected = batch["actions"] * ACTION_MASK[batch["task_ids"]][:, None]
    assert torch.equal(result.best_action[fresh], expected[fresh])


def test_half_reanalyze_searches_half_of_the_segments_at_random():
    torch.manual_seed(0)
    reanalyzer, batch = make_reanalyzer(0.5), make_batch()
    chosen = []
    for _ in range(6):
        result = reanalyzer(batch)
        fresh = searched_rows(result)
        assert fresh.sum() == BATCH / 2
        assert result.candidates is result.weights is None
        masked = (ACTION_MASK[batch["task_ids"]][:, None] == 0).expand(-1, K + 1, -1)
        assert (result.best_action[masked & fresh[:, None, None]] == 0).all()
        assert result.best_action[fresh].abs().max() < 1
        chosen.append(tuple(fresh.tolist()))
    assert len(set(chosen)) > 1


def test_partial_reanalyze_gives_each_segment_the_targets_of_its_own_observations():
    # Acting with the policy mean is a search without randomness.
    torch.manual_seed(0)
    batch = make_batch()
    full = make_reanalyzer(1.0, settings=None)(batch)
    half = make_reanalyzer(0.5, settings=None)(batch)
    fresh = searched_rows(half)
    assert 0 < fresh.sum() < BATCH
    torch.testing.assert_close(half.search_value[fresh], full.search_value[fresh])
    torch.testing.assert_close(half.best_action[fresh], full.best_action[fresh])


def test_no_reanalyze_keeps_every_stored_target_and_never_searches(monkeypatch):
    reanalyzer, batch = make_reanalyzer(0.0), make_batch()

    def no_search(*args, **kwargs):
        raise AssertionError("ratio 0 must not search")

    monkeypatch.setattr(reanalyzer.planner, "plan", no_search)
    result = reanalyzer(batch)
    assert torch.equal(result.search_value, batch["search_values"])
    assert torch.equal(result.best_action, batch["search_actions"])
    assert result.candidates is result.weights is None


def test_td_targets_are_fresh_whatever_the_ratio():
    batch = make_batch()
    full, none = make_reanalyzer(1.0)(batch), make_reanalyzer(0.0)(batch)
    assert torch.equal(full.td_value, none.td_value)
    assert torch.equal(full.value_variance, none.value_variance)


def test_the_batch_is_left_as_it_was():
    batch = make_batch()
    before = {name: column.clone() for name, column in batch.items()}
    make_reanalyzer(0.5)(batch)
    for name, column in batch.items():
        assert torch.equal(column, before[name]), name


def test_targets_carry_no_gradient():
    assert not any(x.requires_grad for x in make_reanalyzer()(make_batch()))
