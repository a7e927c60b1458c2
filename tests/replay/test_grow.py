"""A stored buffer in a new one, of other tasks and wider rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rllib_ezm.replay import EpisodeChunk, MultiTaskReplayBuffer
from rllib_ezm.replay.grow import keep_rings
from rllib_ezm.replay.storage import load_state, save_state

SOURCE = (1, None, 0)
"""New id -> old id; the old buffer has a third task, which is dropped."""

WIDE_OBS, WIDE_ACTION = 4, 3


def buffer(
    num_tasks: int, obs_dim: int, action_dim: int, **options: object
) -> MultiTaskReplayBuffer:
    sizes = {"capacity_per_task": 9, "unroll_steps": 2, "td_steps": 2, "seed": 0, **options}
    return MultiTaskReplayBuffer(
        num_tasks=num_tasks, obs_dim=obs_dim, action_dim=action_dim, **sizes
    )


def chunk(task: int, length: int, width: tuple[int, int] = (2, 1), *, seed: int, ends: bool = True):
    rng = np.random.default_rng(seed)

    def rows(count: int, dim: int, wide: int) -> np.ndarray:
        return np.pad(rng.normal(size=(count, dim)), ((0, 0), (0, wide - dim)))

    return EpisodeChunk(
        task_id=task,
        episode_id=f"episode-{seed}",
        start=0,
        observations=rows(length + 1, 2, width[0]),
        actions=rows(length, 1, width[1]),
        rewards=rng.normal(size=length),
        terminated=ends,
        truncated=False,
        search_values=rng.normal(size=length),
        policy_means=rows(length, 1, width[1]),
        policy_stds=rows(length, 1, width[1]),
        searched_at=7,
    )


def old_buffer() -> MultiTaskReplayBuffer:
    """Task 1's ring has been overwritten in part, and its last episode goes on."""
    old = buffer(3, 2, 1)
    for number, (task, length, ends) in enumerate(
        ((0, 4, True), (1, 6, True), (2, 5, True), (1, 7, False))
    ):
        old.add(chunk(task, length, seed=number, ends=ends))
    old.update_priorities(np.array([0]), np.array([[1, 2]]), np.array([5.0]))
    return old


@pytest.fixture(params=["in memory", "stored"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> dict:
    state = old_buffer().get_state()
    if request.param == "in memory":
        return state
    save_state(state, tmp_path / "replay")
    return load_state(tmp_path / "replay")


def test_it_is_the_buffer_that_would_have_collected_the_same(state: dict) -> None:
    new, wanted = buffer(3, WIDE_OBS, WIDE_ACTION), buffer(3, WIDE_OBS, WIDE_ACTION)
    new.set_state(keep_rings(new.get_state(), state, SOURCE))
    width = (WIDE_OBS, WIDE_ACTION)
    wanted.add(chunk(0, 6, width, seed=1))
    wanted.add(chunk(2, 4, width, seed=0))
    wanted.add(chunk(0, 7, width, seed=3, ends=False))
    wanted.update_priorities(np.array([2]), np.array([[1, 2]]), np.array([5.0]))
    assert [new.num_transitions(task) for task in range(3)] == [7, 0, 4]
    assert [new.num_added(task) for task in range(3)] == [13, 0, 4]
    for name, column in wanted.sample(12).items():
        if name != "searched_at":
            np.testing.assert_array_equal(new.peek(12, np.random.default_rng(0))[name], column)


def test_kept_states_count_as_searched_before_the_first_update(state: dict) -> None:
    new = buffer(3, WIDE_OBS, WIDE_ACTION)
    new.set_state(keep_rings(new.get_state(), state, SOURCE))
    batch = new.sample(8)
    assert not batch["searched_at"].any()
    index = batch["state_index"][:1, 0]
    targets = np.full((1, 1 + 2 * WIDE_ACTION), 0.25)
    new.update_targets(batch["task_ids"][:1], index, targets, searched_at=0)
    found = new.sample(64)
    assert (found["search_values"][found["state_index"][..., 0] == index[0, 0]] == 0.25).any()


def test_the_new_buffer_draws_and_collects_on(state: dict) -> None:
    new = buffer(3, WIDE_OBS, WIDE_ACTION)
    new.set_state(keep_rings(new.get_state(), state, SOURCE))
    new.add(chunk(1, 5, (WIDE_OBS, WIDE_ACTION), seed=8))
    new.add(chunk(0, 5, (WIDE_OBS, WIDE_ACTION), seed=9))
    assert new.ready_tasks == [0, 1, 2]
    assert set(new.sample(9)["task_ids"]) == {0, 1, 2}


@pytest.mark.parametrize("options", [{"independent": False}, {"capacity_per_task": 12}])
def test_rings_that_do_not_fit_are_refused(options: dict) -> None:
    new = buffer(3, WIDE_OBS, WIDE_ACTION, **options)
    with pytest.raises(ValueError, match=r"independent|capacity of the stored ones"):
        keep_rings(new.get_state(), old_buffer().get_state(), SOURCE)
