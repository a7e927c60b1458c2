"""A restored buffer goes on exactly as the saved one would have."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from helpers.replay_episodes import cut, make_buffer, make_episode, sampled_starts

from rllib_ezm.replay import MultiTaskReplayBuffer


def used_buffer(independent: bool, **settings: object) -> MultiTaskReplayBuffer:
    """Two of three tasks filled, one past wrap-around, with priorities and an open episode."""
    buffer = make_buffer(3, 40, independent=independent, **settings)
    for number in range(7):
        buffer.add(make_episode(0, number, 9, terminated=True))
    buffer.add(cut(make_episode(2, 50, 30, truncated=True), 0, 12))
    for _ in range(3):
        batch = buffer.sample(33)
        buffer.update_priorities(batch["task_ids"], batch["index"], batch["obs"][:, 0, 3] ** 2)
    return buffer


def assert_same_future(one: MultiTaskReplayBuffer, two: MultiTaskReplayBuffer) -> None:
    """Both draw the same, take the same chunks and updates, and draw the same again."""
    rest = make_episode(2, 50, 30, truncated=True)
    for chunk in (cut(rest, 12, 20), make_episode(1, 60, 25), cut(rest, 20, 30)):
        first, second = one.sample(37), two.sample(37)
        for name in first:
            assert first[name].tobytes() == second[name].tobytes(), name
        for buffer, batch in ((one, first), (two, second)):
            priorities = np.abs(batch["rewards"][:, 0])
            buffer.update_priorities(batch["task_ids"], batch["index"], priorities)
            buffer.add(chunk)
    assert [one.num_transitions(t) for t in range(3)] == [two.num_transitions(t) for t in range(3)]
    assert [one.num_added(t) for t in range(3)] == [two.num_added(t) for t in range(3)]
    assert one.num_gaps == two.num_gaps


@pytest.mark.parametrize("independent", [True, False])
def test_round_trip_into_a_new_buffer_is_exact(independent: bool) -> None:
    buffer = used_buffer(independent)
    restored = make_buffer(3, 40, independent=independent, seed=99)
    restored.set_state(buffer.get_state())
    assert_same_future(buffer, restored)


@pytest.mark.parametrize("independent", [True, False])
def test_round_trip_over_other_content_is_exact(independent: bool) -> None:
    buffer = used_buffer(independent)
    restored = make_buffer(3, 40, independent=independent, seed=99)
    for number in range(10):
        restored.add(make_episode(number % 3, 100 + number, 21))
    restored.set_state(buffer.get_state())
    assert restored.ready_tasks == [0, 2]
    assert_same_future(buffer, restored)


def test_state_is_a_copy_of_the_filled_part_only() -> None:
    buffer = used_buffer(True)
    state = buffer.get_state()
    before = copy.deepcopy(state)
    buffer.add(make_episode(0, 70, 30))
    buffer.sample(5)
    assert [len(ring["columns"]["obs"]) for ring in state["rings"].values()] == [40, 0, 13]
    assert state["rng"] == before["rng"]
    for name, array in before["rings"]["0"]["columns"].items():
        assert array.tobytes() == state["rings"]["0"]["columns"][name].tobytes(), name


def test_empty_buffer_round_trips() -> None:
    restored = used_buffer(True)
    restored.set_state(make_buffer(3, 40).get_state())
    assert len(restored) == 0
    assert restored.ready_tasks == []
    assert_same_future_from_empty(restored, make_buffer(3, 40))


def assert_same_future_from_empty(one: MultiTaskReplayBuffer, two: MultiTaskReplayBuffer) -> None:
    for buffer in (one, two):
        buffer.add(make_episode(1, 0, 6))
    assert one.sample(20)["index"].tolist() == two.sample(20)["index"].tolist()


def test_updates_from_before_a_rollback_do_not_reach_slots_that_are_empty_now() -> None:
    buffer = make_buffer(3, 40)
    buffer.add(make_episode(0, 0, 5))
    state = buffer.get_state()
    buffer.add(make_episode(0, 1, 20))
    late = buffer.sample(60)
    buffer.set_state(state)
    buffer.update_priorities(late["task_ids"], late["index"], np.full(60, 3.0))
    assert {identity[1] for identity in sampled_starts(buffer.sample(60))} == {0}


def test_state_of_another_size_is_refused() -> None:
    state = used_buffer(True).get_state()
    with pytest.raises(ValueError, match="'ring_capacity': 41"):
        make_buffer(3, 41).set_state(state)
