from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.tiny_model import ACTION_MASK, OBS_DIM, tiny_model
from oracles.td_oracle import td_oracle

from rllib_ezm.search import RootOutput, SearchSettings, improved_policy
from rllib_ezm.search.gumbel_planner import GumbelPlanner
from rllib_ezm.update.reanalyzer import Reanalyzer, oldest, stored_targets

BATCH, K, N_STEP, DISCOUNT = 6, 2, 3, 0.9
STATES = K + N_STEP + 1
SETTINGS = SearchSettings(num_simulations=4, num_candidates=4, policy_candidates=2)
STORED_VALUE, STORED_MEAN, STORED_STD = 1234.5, 77.0, 55.0  # no search can return these


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
        "policy_means": torch.full((BATCH, K + 1, 3), STORED_MEAN),
        "policy_stds": torch.full((BATCH, K + 1, 3), STORED_STD),
        "searched_at": torch.arange(BATCH * (K + 1)).view(BATCH, K + 1).flip(0),
    }


def searched_states(result):
    """Where the targets are fresh [B, K+1]; a state's are all fresh or all stored."""
    fresh = result.search_value != STORED_VALUE
    assert torch.equal(fresh, (result.policy_mean != STORED_MEAN).all(-1))
    assert torch.equal(fresh, (result.policy_std != STORED_STD).all(-1))
    assert torch.equal(fresh, result.fresh > 0)
    return fresh


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
    policy = improved_policy(plan, best_action_only=False)
    assert torch.equal(result.policy_mean, policy.mean.view(*shape, 3))
    assert torch.equal(result.policy_std, policy.std.view(*shape, 3))


def test_full_reanalyze_replaces_every_stored_target():
    result = make_reanalyzer(1.0)(make_batch())
    assert searched_states(result).all()


ONE_CANDIDATE = dataclasses.replace(SETTINGS, num_candidates=1, policy_candidates=1)


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_the_action_taken_in_a_state_is_one_of_its_candidates(ratio):
    batch = make_batch()
    batch["actions"] = torch.arange(1, BATCH * (K + 1) * 3 + 1).view(BATCH, K + 1, 3) / 100
    result = make_reanalyzer(ratio, ONE_CANDIDATE, replayed_candidate=True)(batch)
    fresh = searched_states(result)
    expected = batch["actions"] * ACTION_MASK[batch["task_ids"]][:, None]
    torch.testing.assert_close(result.policy_mean[fresh].tanh(), expected[fresh])


def test_the_states_searched_the_longest_time_ago_are_searched_anew():
    batch = make_batch()
    transitions = batch["step_mask"][:, : K + 1] > 0
    fresh = searched_states(make_reanalyzer(0.5)(batch))
    assert fresh.sum() == BATCH * (K + 1) / 2
    assert (fresh & ~transitions).sum() == 0
    newest_fresh = batch["searched_at"][fresh].max()
    assert newest_fresh < batch["searched_at"][~fresh & transitions].min()


def test_of_states_searched_at_the_same_time_others_are_chosen_each_time():
    torch.manual_seed(0)
    batch = make_batch()
    batch["searched_at"].fill_(7)
    chosen = {tuple(oldest(batch, K + 1, 4).tolist()) for _ in range(6)}
    assert len(chosen) == 6
    assert len({number for rows in chosen for number in rows}) > 4


def test_states_without_a_transition_are_searched_last():
    batch = make_batch()
    batch["searched_at"][batch["step_mask"][:, : K + 1] == 0] = -1
    transitions = int(batch["step_mask"][:, : K + 1].sum())
    rows = oldest(batch, K + 1, transitions)
    assert (batch["step_mask"][:, : K + 1].flatten()[rows] == 1).all()


def test_each_state_gets_the_targets_of_its_own_observation():
    # Acting with the policy mean is a search without randomness.
    batch = make_batch()
    full = make_reanalyzer(1.0, settings=None)(batch)
    half = make_reanalyzer(0.5, settings=None)(batch)
    fresh = searched_states(half)
    assert 0 < fresh.sum() < fresh.numel()
    torch.testing.assert_close(half.search_value[fresh], full.search_value[fresh])
    torch.testing.assert_close(half.policy_mean[fresh], full.policy_mean[fresh])


def test_what_is_stored_is_what_was_searched_in_states_with_a_transition():
    batch = make_batch()
    result = make_reanalyzer(1.0)(batch)
    stored = stored_targets(result, batch["step_mask"])
    assert stored.shape == (BATCH, K + 1, 2 + 2 * 3)
    assert torch.equal(stored[..., 0], batch["step_mask"][:, : K + 1])
    assert torch.equal(stored[..., 1], result.search_value)
    assert torch.equal(stored[..., 2:5], result.policy_mean)
    assert torch.equal(stored[..., 5:], result.policy_std)


def test_no_reanalyze_keeps_every_stored_target_and_never_searches(monkeypatch):
    reanalyzer, batch = make_reanalyzer(0.0), make_batch()

    def no_search(*args, **kwargs):
        raise AssertionError("ratio 0 must not search")

    monkeypatch.setattr(reanalyzer.planner, "plan", no_search)
    result = reanalyzer(batch)
    assert torch.equal(result.search_value, batch["search_values"])
    assert torch.equal(result.policy_mean, batch["policy_means"])
    assert torch.equal(result.policy_std, batch["policy_stds"])
    assert not result.fresh.any()


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
