from __future__ import annotations

import numpy as np
import pytest

from rllib_ezm.replay import EpisodeChunk, MultiTaskReplayBuffer
from rllib_ezm.replay.reorder import reorder_tasks

SOURCE = (2, 0, 1)
"""New id -> old id."""


def filled(ids, *, independent):
    """Chunks of three tasks, one of them of an episode that goes on; task i has the id `ids[i]`."""
    buffer = MultiTaskReplayBuffer(
        num_tasks=3,
        capacity_per_task=9,
        obs_dim=2,
        action_dim=1,
        unroll_steps=2,
        td_steps=2,
        independent=independent,
        seed=0,
    )
    rng = np.random.default_rng(0)
    for task, length, ends in ((0, 4, True), (1, 6, False), (0, 3, True), (2, 12, True)):
        buffer.add(
            EpisodeChunk(
                task_id=ids[task],
                episode_id=f"{task}-{length}",
                start=0,
                observations=rng.normal(size=(length + 1, 2)),
                actions=rng.normal(size=(length, 1)),
                rewards=rng.normal(size=length),
                terminated=ends,
                truncated=False,
                search_values=rng.normal(size=length),
                policy_means=rng.normal(size=(length, 1)),
                policy_stds=rng.uniform(size=(length, 1)),
            )
        )
    return buffer


@pytest.mark.parametrize("independent", [True, False])
def test_the_state_is_that_of_a_buffer_with_the_other_ids(independent):
    state = filled((0, 1, 2), independent=independent).get_state()
    before = state["rings"]["0"]["columns"]["tasks"].copy()
    wanted = filled(tuple(np.argsort(SOURCE)), independent=independent).get_state()
    found = reorder_tasks(state, SOURCE)
    np.testing.assert_equal(found, wanted)
    np.testing.assert_array_equal(state["rings"]["0"]["columns"]["tasks"], before)
    assert reorder_tasks(state, (0, 1, 2)) == state
