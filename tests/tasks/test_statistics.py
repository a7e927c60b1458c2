from __future__ import annotations

import numpy as np
import pytest

from rllib_ezm.tasks import TaskSpec
from rllib_ezm.tasks.statistics import TaskStatistics


def make_statistics(window=2):
    def no_env():
        raise AssertionError("statistics need no environment")

    return TaskStatistics(
        (
            TaskSpec("a", no_env, random_score=10.0, success_score=30.0),
            TaskSpec("b", no_env, success_score=100.0, info_metrics=("success", "height")),
        ),
        window,
    )


def add(statistics, task_id, episode_id, *rewards, done=False):
    statistics.add(task_id, episode_id, np.asarray(rewards), done=done)


def test_scores_by_hand():
    statistics = make_statistics()
    add(statistics, 0, "x", 4.0, 6.0)
    add(statistics, 0, "x", 10.0, done=True)  # return 20: (20 - 10) / 20 = 0.5
    assert statistics.scores() == [0.5, None]
    add(statistics, 0, "y", 40.0, done=True)  # mean return 30: (30 - 10) / 20 = 1
    add(statistics, 1, "z", 25.0, done=True)  # 25 / 100
    assert statistics.scores() == [1.0, 0.25]
    assert statistics.score_mean() == 0.625
    assert statistics.env_steps.tolist() == [4, 1]
    assert statistics.episodes.tolist() == [2, 1]


def test_only_the_latest_episodes_count():
    statistics = make_statistics(window=2)
    for i, episode_return in enumerate([1000.0, 20.0, 30.0]):
        add(statistics, 0, f"e{i}", episode_return, done=True)
    # Mean 25 of the last two: (25 - 10) / 20.
    assert statistics.scores()[0] == 0.75
    assert statistics.episodes[0] == 3


def test_chunks_of_interleaved_episodes_are_kept_apart():
    statistics = make_statistics()
    add(statistics, 0, "x", 1.0)
    add(statistics, 0, "y", 100.0)
    add(statistics, 1, "z", 7.0)
    add(statistics, 0, "x", 2.0, done=True)
    add(statistics, 0, "y", 200.0, done=True)
    assert list(statistics.returns[0]) == [3.0, 300.0]
    assert list(statistics.returns[1]) == []
    assert statistics.episodes.tolist() == [2, 0]


def test_an_episode_that_ends_between_chunks_is_counted_with_its_last_steps():
    statistics = make_statistics()
    add(statistics, 0, "x", 5.0)
    add(statistics, 0, "x", done=True)
    assert list(statistics.returns[0]) == [5.0]
    assert statistics.env_steps[0] == 1


def test_a_score_is_absent_before_the_first_episode_of_each_task():
    statistics = make_statistics()
    assert statistics.scores() == [None, None]
    assert statistics.score_mean() is None
    add(statistics, 1, "z", 50.0)
    assert statistics.score_mean() is None
    add(statistics, 1, "z", 50.0, done=True)
    assert statistics.score_mean() is None, "task a has no episode yet; 0 would beat what it gets"
    add(statistics, 0, "x", -10.0, done=True)
    assert statistics.score_mean() == (-1.0 + 1.0) / 2


def test_negative_scores_are_not_lost():
    statistics = make_statistics()
    add(statistics, 0, "x", 0.0, done=True)  # (0 - 10) / 20
    assert statistics.scores()[0] == -0.5
    add(statistics, 1, "x", 0.0, done=True)
    assert statistics.score_mean() == -0.25


def test_state_survives_a_round_trip_and_is_a_copy():
    statistics = make_statistics(window=2)
    add(statistics, 0, "x", 20.0, done=True)
    add(statistics, 1, "z", 1.0, 2.0)
    state = statistics.get_state()
    add(statistics, 0, "later", 1e6, done=True)

    restored = make_statistics(window=2)
    restored.set_state(state)
    assert restored.scores() == [0.5, None]
    assert restored.env_steps.tolist() == [1, 2]
    assert restored.episodes.tolist() == [1, 0]
    # The window is in force again, and counting does not write into the state.
    for i in range(3):
        add(restored, 0, f"e{i}", 30.0, done=True)
    assert list(restored.returns[0]) == [30.0, 30.0]
    assert state["env_steps"].tolist() == [1, 2]
    assert state["returns"] == [[20.0], []]


def test_physics_errors_are_counted_per_task_and_survive_a_restart():
    statistics = make_statistics()
    for episode in ("x", "y"):
        statistics.add(1, episode, np.ones(3), done=True, physics_error=True)
    add(statistics, 0, "z", 1.0, done=True)
    restored = make_statistics()
    restored.set_state(statistics.get_state())
    assert restored.physics_errors.tolist() == [0, 2]


def test_episodes_under_way_at_a_restart_are_dropped():
    statistics = make_statistics()
    state = statistics.get_state()
    add(statistics, 0, "x", 99.0)
    statistics.set_state(state)
    add(statistics, 0, "x", 1.0, done=True)
    assert list(statistics.returns[0]) == [1.0]


def test_metrics_are_means_over_the_latest_episodes_that_reported_them():
    statistics = make_statistics(window=2)
    assert statistics.info_means(1) == {}
    for episode, info in enumerate([{"success": 1.0}, {"success": 0.5, "height": 3.0}, {}]):
        statistics.add(1, f"e{episode}", np.ones(2), done=False)
        statistics.add(1, f"e{episode}", np.ones(2), done=True, info=info)
    assert statistics.info_means(1) == {"success": 0.5, "height": 3.0}
    assert statistics.info_means(0) == {}
    restored = make_statistics(window=2)
    state = statistics.get_state()
    restored.set_state(state)
    assert restored.info_means(1) == {"success": 0.5, "height": 3.0}
    add(restored, 1, "later", 1.0, done=True)
    assert restored.info_means(1) == {}, "the last two episodes reported none"
    assert state["info"][1] == {"success": [0.5, None], "height": [3.0, None]}
    del state["info"]
    restored.set_state(state)
    assert restored.info_means(1) == {}, "a state from before there were metrics"


def test_state_of_another_number_of_tasks_is_refused():
    statistics = make_statistics()
    state = statistics.get_state()
    state["returns"] = state["returns"][:1]
    with pytest.raises(ValueError, match="zip"):
        statistics.set_state(state)
