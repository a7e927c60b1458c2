from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.td_oracle import td_oracle

from rllib_ezm.update.value_targets import (
    age_mixing_weight,
    alive_mask,
    mix_values,
    state_masks,
    td_targets,
    variance_mixing_weight,
)

# Segments of K = 1, n = 2: states 0..3 with values 10, 20, 30, 40 and rewards 1, 2, 3.
REWARDS = torch.tensor([[1.0, 2.0, 3.0]])
VALUES = torch.tensor([[10.0, 20.0, 30.0, 40.0]])


def targets_of(length, terminal, rewards=REWARDS, values=VALUES):
    step_mask = (torch.arange(3) < length).float()[None]
    return td_targets(
        rewards * step_mask,
        step_mask,
        torch.tensor([terminal]),
        values,
        discount=0.5,
        unroll_steps=1,
        td_steps=2,
    )[0].tolist()


def test_td_targets_inside_an_episode_by_hand():
    # z_0 = 1 + 0.5 * 2 + 0.25 * 30 = 9.5; z_1 = 2 + 0.5 * 3 + 0.25 * 40 = 13.5.
    assert targets_of(length=3, terminal=0.0) == [9.5, 13.5]


def test_td_targets_are_zero_after_a_termination():
    # The terminal state is 2. z_0 = 1 + 0.5 * 2; z_1 = 2: nothing is bootstrapped.
    assert targets_of(length=2, terminal=1.0) == [2.0, 2.0]
    # The terminal state is 1: z_0 = 1, and the terminal state itself is worth 0.
    assert targets_of(length=1, terminal=1.0) == [1.0, 0.0]
    # The terminal state is 3, beyond the reach of z_0.
    assert targets_of(length=3, terminal=1.0) == [9.5, 3.5]


def test_td_targets_bootstrap_at_a_truncation():
    # The last state is 2, cut off: z_0 = 1 + 0.5 * 2 + 0.25 * 30, z_1 = 2 + 0.5 * 30.
    assert targets_of(length=2, terminal=0.0) == [9.5, 17.0]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31 - 1),
    st.integers(1, 5),
    st.integers(1, 6),
    st.floats(0.0, 1.0),
)
def test_td_targets_equal_the_oracle(seed, unroll_steps, td_steps, discount):
    generator = torch.Generator().manual_seed(seed)
    batch, states = 7, unroll_steps + td_steps + 1
    lengths = torch.randint(1, states, (batch,), generator=generator)
    terminal = torch.randint(0, 2, (batch,), generator=generator).float()
    step_mask = (torch.arange(states - 1) < lengths[:, None]).float()
    # Rewards past the end are garbage here: no target may depend on them.
    rewards = torch.randn(batch, states - 1, generator=generator)
    values = torch.randn(batch, states, generator=generator)
    found = td_targets(
        rewards,
        step_mask,
        terminal,
        values,
        discount=discount,
        unroll_steps=unroll_steps,
        td_steps=td_steps,
    )
    assert found.shape == (batch, unroll_steps + 1)
    for b in range(batch):
        for start in range(min(unroll_steps, int(lengths[b])) + 1):
            expected = td_oracle(
                rewards[b].tolist(),
                values[b].tolist(),
                num_transitions=int(lengths[b]),
                terminated=bool(terminal[b]),
                discount=discount,
                start=start,
                td_steps=td_steps,
            )
            assert found[b, start].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_td_targets_ignore_rewards_and_values_past_the_end():
    rewards, values = REWARDS.clone(), VALUES.clone()
    rewards[0, 1:], values[0, 2:] = 1e6, -1e6
    for terminal in (0.0, 1.0):
        assert targets_of(1, terminal, rewards, values) == targets_of(1, terminal)


def test_state_masks_by_hand():
    # K = 2, n = 1: transitions 0..2. Lengths 3, 2, 2, 1; the 2nd and 4th end in a termination.
    step_mask = torch.tensor([[1.0, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0]])
    policy, value = state_masks(step_mask, torch.tensor([0.0, 1.0, 0.0, 1.0]), 2)
    assert policy.tolist() == step_mask.tolist()
    # A terminal state has a value target (0) and no action; a truncated one has neither.
    assert value.tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 0]]


def test_a_termination_past_the_unroll_marks_no_state():
    step_mask = torch.ones(1, 4)  # K = 2, n = 2: the terminal state is 4.
    policy, value = state_masks(step_mask, torch.ones(1), 2)
    assert policy.tolist() == value.tolist() == [[1, 1, 1]]


def test_variance_mixing_weight_by_hand():
    # (3 - 1) / (5 - 1) = 0.5; below the window 0, above it 1.
    variance = torch.tensor([3.0, 0.5, 9.0])
    alpha = variance_mixing_weight(variance, torch.tensor(1.0), torch.tensor(5.0))
    assert alpha.tolist() == [0.5, 0.0, 1.0]


def test_variance_mixing_weight_of_an_empty_window_is_finite():
    variance = torch.tensor([1.0, 2.0])
    window = torch.tensor(1.0)
    assert variance_mixing_weight(variance, window, window).tolist() == [0.0, 1.0]


def test_age_mixing_weight_by_hand():
    assert age_mixing_weight(torch.tensor([0, 9, 10, 11]), 10).tolist() == [1, 1, 0, 0]


def test_mix_values_by_hand():
    # 0.25 * 8 + 0.75 * 4 = 5.
    mixed = mix_values(torch.tensor([0.25, 1.0, 0.0]), torch.tensor(8.0), torch.tensor(4.0))
    assert mixed.tolist() == [5.0, 8.0, 4.0]


def test_alive_mask_by_hand():
    # Two transitions, K = 3: the state after the second one is terminal in the first row only.
    step_mask = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).repeat(2, 1)
    alive = alive_mask(step_mask, torch.tensor([1.0, 0.0]), unroll_steps=3)
    assert alive.tolist() == [[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]
