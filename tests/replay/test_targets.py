"""Search targets of stored states are replaced by those of later searches."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.replay_episodes import ACTION_DIM, make_buffer, make_episode

from rllib_ezm.replay.columns import current_columns

WIDTH = 1 + 2 * ACTION_DIM


def states_of(batch):
    """Task ids, indices and ordinals of the sampled states with a transition, each once."""
    exists = batch["step_mask"][:, :3] > 0
    tasks = np.broadcast_to(batch["task_ids"][:, None], exists.shape)[exists]
    index, first = np.unique(
        np.column_stack([tasks, batch["state_index"][exists]]), axis=0, return_index=True
    )
    return index[:, 0], index[:, 1:], batch["obs"][:, :3][exists][first]


def fill(buffer):
    for task in range(2):
        buffer.add(make_episode(task, task, 20, truncated=True))


@pytest.mark.parametrize("independent", [True, False])
def test_the_latest_search_of_each_state_is_what_is_sampled(independent):
    buffer = make_buffer(2, 40, independent=independent)
    fill(buffer)
    tasks, index, obs = states_of(buffer.sample(200))
    assert len(tasks) == 40
    # Named by the state: task and step are the first and third of the observation.
    targets = np.arange(WIDTH) + 1000 * obs[:, :1] + 10 * obs[:, 2:3]
    buffer.update_targets(tasks, index, targets, 9)
    batch = buffer.sample(200)
    exists = batch["step_mask"][:, :3] > 0
    expected = 1000 * batch["obs"][:, :3, 0] + 10 * batch["obs"][:, :3, 2]
    np.testing.assert_array_equal(batch["search_values"][exists], expected[exists])
    steps = np.arange(1, ACTION_DIM + 1)
    means, stds = batch["policy_means"][exists], batch["policy_stds"][exists]
    np.testing.assert_array_equal(means, expected[exists][:, None] + steps)
    np.testing.assert_array_equal(stds, expected[exists][:, None] + steps + ACTION_DIM)
    assert (batch["searched_at"][exists] == 9).all()


def test_an_older_search_and_one_of_an_overwritten_state_change_nothing():
    buffer = make_buffer(1, 21)
    buffer.add(make_episode(0, 5, 20, truncated=True))  # searched at update 5
    tasks, index, _ = states_of(buffer.sample(200))
    targets = np.full((len(tasks), WIDTH), 3.0)
    buffer.update_targets(tasks, index, targets, 4)
    assert not (buffer.sample(50)["search_values"] == 3.0).any()
    buffer.add(make_episode(0, 6, 20, truncated=True))
    buffer.update_targets(tasks, index, targets, 9)
    assert not (buffer.sample(50)["search_values"] == 3.0).any()


def test_targets_that_cannot_be_stored_are_refused():
    buffer = make_buffer(2, 40)
    fill(buffer)
    tasks, index, _ = states_of(buffer.sample(20))
    good = np.zeros((len(tasks), WIDTH))
    with pytest.raises(ValueError, match="finite"):
        buffer.update_targets(tasks, index, good + np.nan, 1)
    with pytest.raises(ValueError, match="need shape"):
        buffer.update_targets(tasks, index, good[:, 1:], 1)
    with pytest.raises(ValueError, match="come from `sample`"):
        buffer.update_targets(tasks, index + np.array([40, 0]), good, 1)


def test_a_buffer_stored_with_best_actions_is_read():
    actions = np.array([[0.5, -1.0]], np.float32)
    columns = current_columns({"search_actions": actions, "rewards": np.ones(1)})
    np.testing.assert_allclose(np.tanh(columns["policy_means"]), [[0.5, -0.999]], atol=1e-6)
    assert not columns["policy_stds"].any()
    assert columns["searched_at"].tolist() == [0]
