"""Shares, priorities, importance weights, ages and the byte budget of the multi-task buffer."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from helpers.replay_episodes import (
    ACTION_DIM,
    OBS_DIM,
    cut,
    make_buffer,
    make_episode,
    sampled_starts,
)

from rllib_ezm.replay import MultiTaskReplayBuffer
from rllib_ezm.replay.shares import balanced_shares, importance_weights


def set_priority_by_step(buffer: MultiTaskReplayBuffer, priorities: dict[int, float]) -> None:
    """Gives every stored transition the priority listed for its step."""
    batch = buffer.sample(400)
    steps = [step for _, _, step in sampled_starts(batch)]
    assert set(steps) == set(priorities)
    values = np.array([priorities[step] for step in steps])
    buffer.update_priorities(batch["task_ids"], batch["index"], values)


def step_counts(buffer: MultiTaskReplayBuffer, draws: int) -> Counter[int]:
    return Counter(step for _, _, step in sampled_starts(buffer.sample(draws)))


def test_columns_have_the_documented_shapes_and_types() -> None:
    buffer = make_buffer(2, 50)
    buffer.add(make_episode(0, 0, 20))
    buffer.add(make_episode(1, 1, 20))
    batch = buffer.sample(8)
    found = {name: (array.shape, array.dtype.name) for name, array in batch.items()}
    assert found == {
        "obs": ((8, 6, OBS_DIM), "float32"),
        "actions": ((8, 3, ACTION_DIM), "float32"),
        "rewards": ((8, 5), "float32"),
        "step_mask": ((8, 5), "float32"),
        "terminal": ((8,), "float32"),
        "task_ids": ((8,), "int64"),
        "weights": ((8,), "float32"),
        "search_values": ((8, 3), "float32"),
        "policy_means": ((8, 3, ACTION_DIM), "float32"),
        "policy_stds": ((8, 3, ACTION_DIM), "float32"),
        "searched_at": ((8, 3), "int64"),
        "state_index": ((8, 3, 2), "int64"),
        "age": ((8,), "int64"),
        "index": ((8, 2), "int64"),
    }


def test_tasks_get_equal_shares_and_the_remainder_rotates() -> None:
    buffer = make_buffer(4, 60)
    for task, length in enumerate([50, 1, 7, 20]):
        buffer.add(make_episode(task, task, length))
    totals = np.zeros(4, int)
    for _ in range(4):
        task_ids = buffer.sample(11)["task_ids"]
        shares = np.bincount(task_ids, minlength=4)
        assert (np.diff(task_ids) >= 0).all()
        assert sorted(shares) == [2, 3, 3, 3]
        totals += shares
    assert totals.tolist() == [11, 11, 11, 11]


def test_batch_smaller_than_the_number_of_tasks_goes_round() -> None:
    buffer = make_buffer(3, 60)
    for task in range(3):
        buffer.add(make_episode(task, task, 9))
    seen = [task for _ in range(3) for task in buffer.sample(2)["task_ids"].tolist()]
    assert Counter(seen) == {0: 2, 1: 2, 2: 2}


def test_tasks_without_data_leave_their_share_to_the_others() -> None:
    buffer = make_buffer(4, 60)
    assert buffer.ready_tasks == []
    with pytest.raises(ValueError, match="no transitions yet"):
        buffer.sample(4)
    buffer.add(make_episode(1, 0, 5))
    buffer.add(make_episode(3, 1, 5))
    assert buffer.ready_tasks == [1, 3]
    assert np.bincount(buffer.sample(10)["task_ids"], minlength=4).tolist() == [0, 5, 0, 5]


def test_balanced_shares_by_hand() -> None:
    assert balanced_shares(7, 3, 0).tolist() == [3, 2, 2]
    assert balanced_shares(8, 3, 2).tolist() == [3, 2, 3]
    assert balanced_shares(1, 3, 4).tolist() == [0, 1, 0]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_draws_follow_priority_to_the_alpha(alpha: float) -> None:
    buffer = make_buffer(1, 10, priority_alpha=alpha, priority_epsilon=1e-9)
    buffer.add(make_episode(0, 0, 3))
    set_priority_by_step(buffer, {0: 1.0, 1: 4.0, 2: 9.0})
    weights = np.array([1.0, 4.0, 9.0]) ** alpha
    counts = step_counts(buffer, 6000)
    expected = 6000 * weights / weights.sum()
    # Stratified draws miss the exact share by less than one draw at each border.
    assert np.abs([counts[step] for step in range(3)] - expected).max() <= 2.0


def test_importance_weights_by_hand() -> None:
    # Task one: p = 1/5, 4/5, N = 2, (N p)^-1 = 2.5, 0.625; task two: one priority, weight 1.
    priorities, shares = np.array([1.0, 4.0, 4.0, 8.0]), np.array([3, 0, 1])
    weights = importance_weights(priorities, shares, beta=1.0, floor=0.1)
    assert weights.tolist() == [1.0, 0.25, 0.25, 1.0]
    weights = importance_weights(priorities, shares, beta=0.5, floor=0.1)
    assert weights.tolist() == [1.0, 0.5, 0.5, 1.0]
    weights = importance_weights(priorities, shares, beta=1.0, floor=0.3)
    assert weights.tolist() == [1.0, 0.3, 0.3, 1.0]


def test_sampled_weights_equal_the_formula() -> None:
    buffer = make_buffer(2, 30, priority_alpha=0.6, priority_beta=0.4, min_weight=0.2)
    for task in range(2):
        buffer.add(make_episode(task, task, 4))
    raw = {0: 0.0, 1: 0.3, 2: 2.0, 3: 50.0}
    set_priority_by_step(buffer, raw)
    batch = buffer.sample(300)
    leaves = {step: (value + 1e-6) ** 0.6 for step, value in raw.items()}
    probability = {step: leaf / sum(leaves.values()) for step, leaf in leaves.items()}
    steps = np.array([step for _, _, step in sampled_starts(batch)])
    weights = np.array([(4 * probability[step]) ** -0.4 for step in steps])
    for task in range(2):
        own = batch["task_ids"] == task
        expected = np.maximum(weights[own] / weights[own].max(), 0.2)
        np.testing.assert_allclose(batch["weights"][own], expected, rtol=1e-6)


def test_new_transitions_get_the_current_maximum_of_their_task() -> None:
    buffer = make_buffer(2, 8, priority_epsilon=1e-9)
    buffer.add(make_episode(0, 0, 2))
    buffer.add(make_episode(1, 1, 2))
    set_priority_by_step(buffer, {0: 8.0, 1: 2.0})
    buffer.add(cut(make_episode(0, 2, 4), 2, 4))
    draws = [identity for identity in sampled_starts(buffer.sample(5200)) if identity[0] == 0]
    counts = Counter(step for _, _, step in draws)
    expected = {step: 2600 * p / 26 for step, p in {0: 8, 1: 2, 2: 8, 3: 8}.items()}
    assert max(abs(counts[step] - expected[step]) for step in expected) <= 2

    buffer.add(make_episode(0, 3, 7))  # evicts everything; the maximum it met was 8
    set_priority_by_step_of_task(buffer, 0, 0.5)
    buffer.add(make_episode(0, 4, 3))  # the maximum is 0.5 now: no memory of 8
    assert buffer._tree.maximum(0) == pytest.approx(0.5)


def set_priority_by_step_of_task(buffer: MultiTaskReplayBuffer, task: int, priority: float) -> None:
    batch = buffer.sample(400)
    own = batch["task_ids"] == task
    buffer.update_priorities(
        batch["task_ids"][own], batch["index"][own], np.full(own.sum(), priority)
    )


def test_late_updates_of_overwritten_transitions_change_nothing() -> None:
    buffer = make_buffer(1, 4)
    buffer.add(make_episode(0, 0, 3))
    old = buffer.sample(30)
    buffer.add(make_episode(0, 1, 2))  # overwrites steps 0, 1 and 2 of episode 0
    assert set(sampled_starts(buffer.sample(30))) == {(0, 1, 0), (0, 1, 1)}
    before = buffer._tree.totals().tolist()
    buffer.update_priorities(old["task_ids"], old["index"], np.full(30, 1e6))
    assert buffer._tree.totals().tolist() == before == [2.0]


def test_update_reaches_only_the_sample_it_names() -> None:
    buffer = make_buffer(3, 10)
    for task in range(3):
        buffer.add(make_episode(task, task, 4))
    batch = buffer.sample(3)
    buffer.update_priorities(batch["task_ids"][1:2], batch["index"][1:2], np.array([9.0]))
    np.testing.assert_allclose(buffer._tree.totals(), [4.0, 12.0 + 1e-6, 4.0])


def test_bad_updates_are_refused() -> None:
    buffer = make_buffer(2, 10)
    buffer.add(make_episode(0, 0, 4))
    batch = buffer.sample(2)
    tasks, index = batch["task_ids"], batch["index"]
    for bad in (np.nan, np.inf, -1.0):
        with pytest.raises(ValueError, match="finite"):
            buffer.update_priorities(tasks, index, np.array([1.0, bad]))
    with pytest.raises(ValueError, match="needs shape"):
        buffer.update_priorities(tasks, index[:, 0], np.ones(2))
    with pytest.raises(ValueError, match="task_ids"):
        buffer.update_priorities(tasks + 2, index, np.ones(2))
    with pytest.raises(ValueError, match="come from"):
        buffer.update_priorities(tasks, np.add(index, [10, 0]), np.ones(2))


def test_age_counts_later_transitions_of_the_same_task() -> None:
    buffer = make_buffer(2, 100)
    episode = make_episode(0, 0, 3)
    buffer.add(cut(episode, 0, 2))
    buffer.add(make_episode(0, 1, 4))
    buffer.add(make_episode(1, 2, 40))
    buffer.add(cut(episode, 2, 3))
    batch = buffer.sample(200)
    ages = dict(zip(sampled_starts(batch), batch["age"].tolist(), strict=True))
    own = {identity: age for identity, age in ages.items() if identity[0] == 0}
    order = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, 2), (0, 1, 3), (0, 0, 2)]
    assert own == {identity: 6 - i for i, identity in enumerate(order)}


def test_shared_ring_is_drawn_from_as_a_whole() -> None:
    buffer = make_buffer(2, 20, independent=False)
    buffer.add(make_episode(1, 0, 10))
    buffer.add(make_episode(0, 1, 20))
    batch = buffer.sample(90)
    assert (np.diff(batch["task_ids"]) >= 0).all()
    assert np.abs(np.bincount(batch["task_ids"]) - [60, 30]).max() <= 1
    buffer.update_priorities(batch["task_ids"], batch["index"], np.full(90, 1.0))
    np.testing.assert_allclose(buffer._tree.totals(), [30.0 * (1 + 1e-6)])

    buffer.add(make_episode(0, 2, 38, terminated=True))  # 39 of 40 slots: task 1 is pushed out
    assert [buffer.num_transitions(task) for task in range(2)] == [38, 0]
    assert buffer.ready_tasks == [0]
    assert [buffer.num_added(task) for task in range(2)] == [58, 10]


def test_shared_ring_keeps_each_weight_with_its_sample() -> None:
    buffer = make_buffer(2, 20, independent=False, priority_epsilon=1e-9)
    buffer.add(make_episode(1, 0, 2))
    buffer.add(make_episode(0, 1, 2))
    batch = buffer.sample(40)
    by_task = np.where(batch["task_ids"] == 0, 4.0, 1.0)
    buffer.update_priorities(batch["task_ids"], batch["index"], by_task)
    batch = buffer.sample(40)
    np.testing.assert_allclose(batch["weights"], np.where(batch["task_ids"] == 0, 0.25, 1.0))


def test_draws_are_random_within_their_stratum() -> None:
    buffer = make_buffer(1, 20)
    buffer.add(make_episode(0, 0, 10))
    first_stratum = Counter(sampled_starts(buffer.sample(2))[0][2] for _ in range(500))
    assert set(first_stratum) == {0, 1, 2, 3, 4}
    assert min(first_stratum.values()) > 60


def test_peeking_does_not_change_what_is_sampled_later() -> None:
    plain, peeked = (make_buffer(3, 60) for _ in range(2))
    for buffer in (plain, peeked):
        for task in range(3):
            buffer.add(make_episode(task, task, 30))
    first = peeked.peek(7, np.random.default_rng(1))
    again = peeked.peek(7, np.random.default_rng(1))
    np.testing.assert_array_equal(first["index"], again["index"])
    with pytest.raises(ValueError, match="batch_size"):
        peeked.peek(0, np.random.default_rng(1))
    for _ in range(2):
        one, other = plain.sample(7), peeked.sample(7)
        np.testing.assert_array_equal(one["index"], other["index"])
        np.testing.assert_array_equal(one["task_ids"], other["task_ids"])
    assert not np.array_equal(first["index"], one["index"])


def test_byte_budget_names_the_largest_capacity_that_fits() -> None:
    fitting = make_buffer(3, 1000)
    budget = fitting.nbytes
    assert make_buffer(3, 1000, max_bytes=budget).nbytes == budget
    with pytest.raises(ValueError, match=f"{budget:,}.*at most 999") as error:
        make_buffer(3, 1000, max_bytes=budget - 1)
    assert f"{budget - 1:,}" in str(error.value)
    make_buffer(3, 999, max_bytes=budget - 1)
    with pytest.raises(ValueError, match="not even the smallest"):
        make_buffer(3, 1000, independent=False, max_bytes=100)


def test_nbytes_counts_every_array() -> None:
    for independent in (True, False):
        buffer = make_buffer(3, 700, independent=independent)
        columns = buffer._columns.read(slice(None), copy=False).values()
        arrays = [
            *columns,
            *buffer._slots.named().values(),
            *buffer._tree._sums,
            *buffer._tree._maxima,
        ]
        assert sum({id(a): a.nbytes for a in arrays}.values()) == buffer.nbytes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unroll_steps": 0}, "unroll_steps must be at least 1"),
        ({"td_steps": 0}, "td_steps must be at least 1"),
        ({"priority_alpha": 1.5}, "priority_alpha must be in"),
        ({"priority_beta": -0.1}, "priority_beta must be in"),
        ({"min_weight": float("nan")}, "min_weight must be in"),
        ({"priority_epsilon": 0.0}, "priority_epsilon must be positive"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_buffer(2, 10, **settings)


def test_foreign_chunks_and_batch_sizes_are_refused() -> None:
    buffer = make_buffer(2, 10)
    with pytest.raises(ValueError, match="task_id must be in"):
        buffer.add(make_episode(2, 0, 3))
    wide = MultiTaskReplayBuffer(
        num_tasks=2,
        capacity_per_task=10,
        obs_dim=OBS_DIM + 1,
        action_dim=ACTION_DIM,
        unroll_steps=1,
        td_steps=1,
    )
    with pytest.raises(ValueError, match="pad them"):
        wide.add(make_episode(0, 0, 3))
    with pytest.raises(ValueError, match="batch_size"):
        buffer.sample(0)
