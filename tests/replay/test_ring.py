"""Every transition, accounted for: rings against the plain-list oracle on awkward episodes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from helpers.replay_episodes import cut, make_buffer, make_episode, sampled_starts
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.replay_oracle import ReplayOracle

from rllib_ezm.replay import EpisodeChunk, MultiTaskReplayBuffer

K, N_STEP = 2, 3
NUM_TASKS = 3
LENGTHS = [1, 2, K, K + 1, K + N_STEP, K + N_STEP + 1, 9, 17, 100, 101]


@st.composite
def interleaved_chunks(draw: st.DrawFn) -> list[EpisodeChunk]:
    """Episodes of all tasks cut into random chunks, in any order that keeps each episode's own.

    An episode may stop without an end flag, and a chunk in its middle may be lost.
    """
    queues = []
    for number in range(draw(st.integers(1, 8))):
        end = draw(st.sampled_from(["terminated", "truncated", "stops", "both"]))
        length = draw(st.sampled_from(LENGTHS))
        episode = make_episode(
            draw(st.integers(0, NUM_TASKS - 1)),
            number,
            length,
            terminated=end in ("terminated", "both"),
            truncated=end in ("truncated", "both"),
        )
        cuts = draw(st.sets(st.integers(1, length - 1), max_size=5)) if length > 1 else set()
        edges = [0, *sorted(cuts), length]
        queue = [cut(episode, *edge) for edge in pairwise(edges)]
        if len(queue) > 2 and draw(st.integers(0, 3)) == 0:
            del queue[draw(st.integers(1, len(queue) - 2))]
        queues.append(queue)
    chunks = []
    while queues:
        queue = queues[draw(st.integers(0, len(queues) - 1))]
        chunks.append(queue.pop(0))
        queues = [queue for queue in queues if queue]
    return chunks


def assert_same_content(buffer: MultiTaskReplayBuffer, oracle: ReplayOracle) -> None:
    """Draws so many strata that every stored transition must appear, and compares each one."""
    starts = [oracle.starts(task) for task in range(NUM_TASKS)]
    assert [buffer.num_transitions(t) for t in range(NUM_TASKS)] == [len(s) for s in starts]
    assert [buffer.num_added(t) for t in range(NUM_TASKS)] == [len(a) for a in oracle.added]
    assert len(buffer) == sum(len(s) for s in starts)
    assert buffer.ready_tasks == [task for task in range(NUM_TASKS) if starts[task]]

    largest = max(len(s) for s in starts)
    batch = buffer.sample(2 * NUM_TASKS * largest)
    by_identity = {
        (task, int(name.split("/")[0][1:]), step): (task, name, step)
        for task, name, step in set().union(*starts)
    }
    drawn = sampled_starts(batch)
    assert set(drawn) == set(by_identity)
    seen = set()
    for row, identity in enumerate(drawn):
        if identity in seen:
            continue
        seen.add(identity)
        for name, expected in oracle.segment(by_identity[identity], K, N_STEP).items():
            np.testing.assert_array_equal(batch[name][row], expected, err_msg=name)


@pytest.mark.parametrize("independent", [True, False])
@settings(max_examples=60, deadline=None)
@given(chunks=interleaved_chunks(), capacity=st.sampled_from([2, 3, 5, 8, 20, 64, 103, 1000]))
def test_every_transition_is_stored_once_and_read_back_as_it_was(
    independent: bool, chunks: list[EpisodeChunk], capacity: int
) -> None:
    buffer = make_buffer(NUM_TASKS, capacity, independent=independent)
    oracle = ReplayOracle(NUM_TASKS, capacity, independent)
    for chunk in chunks:
        buffer.add(chunk)
        oracle.add(chunk)
        assert_same_content(buffer, oracle)


def test_long_run_wraps_around_many_times() -> None:
    buffer, oracle = make_buffer(NUM_TASKS, 37), ReplayOracle(NUM_TASKS, 37, True)
    for number in range(60):
        length = LENGTHS[number % 8]
        episode = make_episode(number % NUM_TASKS, number, length, terminated=number % 2 == 0)
        buffer.add(episode)
        oracle.add(episode)
    assert_same_content(buffer, oracle)


def test_links_of_stored_slots_never_lead_to_overwritten_ones() -> None:
    buffer = make_buffer(1, 16)
    for number in range(40):
        episode = make_episode(0, number, 7)
        for begin in range(0, 6, 3):
            buffer.add(cut(episode, begin, begin + 3))
            slots = buffer._slots
            starts = np.flatnonzero(slots.kinds == 1)
            following = (slots.successors[starts] - 1) % 16
            assert (slots.serials[following] == slots.successors[starts]).all()
            assert (slots.successors[starts] > slots.serials[starts]).all()


def test_chunk_after_its_pending_state_was_overwritten_starts_a_new_stretch() -> None:
    buffer = make_buffer(1, 6)
    first = make_episode(0, 0, 4, terminated=True)
    buffer.add(cut(first, 0, 2))
    buffer.add(make_episode(0, 1, 5, truncated=True))
    assert buffer.num_transitions(0) == 5
    buffer.add(cut(first, 2, 4))
    batch = buffer.sample(100)
    assert set(sampled_starts(batch)) == {(0, 0, 2), (0, 0, 3), (0, 1, 3), (0, 1, 4)}
    from_first = batch["obs"][:, 0, 1] == 0
    assert (batch["terminal"] == from_first).all()
    assert buffer.num_gaps == 0


def test_lost_chunk_is_counted_and_not_bridged() -> None:
    buffer = make_buffer(1, 50)
    episode = make_episode(0, 0, 9, terminated=True)
    buffer.add(cut(episode, 0, 3))
    buffer.add(cut(episode, 6, 9))
    batch = buffer.sample(60)
    steps = batch["obs"][:, 0, 2]
    assert set(steps) == {0, 1, 2, 6, 7, 8}
    assert (batch["step_mask"].sum(1) == np.where(steps < 3, 3 - steps, 9 - steps)).all()
    assert (batch["terminal"] == (steps > 3)).all()
    assert buffer.num_gaps == 1


def test_ids_of_crashed_episodes_do_not_pile_up() -> None:
    buffer = make_buffer(1, 10)
    for number in range(200):
        buffer.add(make_episode(0, number, 1))
    assert len(buffer._rings[0].ongoing) == 5


def test_chunk_added_twice_is_refused() -> None:
    buffer = make_buffer(1, 50)
    episode = make_episode(0, 0, 9)
    buffer.add(cut(episode, 0, 5))
    with pytest.raises(ValueError, match="already stored up to step 5"):
        buffer.add(cut(episode, 3, 9))
    buffer.add(cut(episode, 5, 9))
    assert buffer.num_transitions(0) == 9


def test_chunk_that_does_not_share_the_joint_observation_is_refused() -> None:
    buffer = make_buffer(1, 50)
    buffer.add(cut(make_episode(0, 0, 9), 0, 5))
    with pytest.raises(ValueError, match="share the observation"):
        buffer.add(cut(make_episode(0, 0, 8), 5, 8))
    assert buffer.num_transitions(0) == 5


def _changed(name: str, value: Callable[[EpisodeChunk], object]) -> dict[str, object]:
    chunk = make_episode(0, 0, 4)
    return {**chunk.__dict__, name: value(chunk)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (_changed("observations", lambda c: c.observations[:-1]), "need 5 observations"),
        (_changed("actions", lambda c: c.actions[:-1]), "actions has 3 rows"),
        (_changed("policy_means", lambda c: c.policy_means[:, :1]), "same shape"),
        (_changed("policy_stds", lambda c: c.policy_stds[:-1]), "policy_stds has 3 rows"),
        (_changed("rewards", lambda c: c.rewards[:, None]), "rewards needs 1 dim"),
        (_changed("rewards", lambda c: c.rewards[:0]), "no transition"),
        (_changed("rewards", lambda c: c.rewards * np.nan), "NaN"),
        (_changed("start", lambda c: -1), "start"),
    ],
)
def test_malformed_chunk_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpisodeChunk(**arguments)
