"""The replay ratio, by hand."""

from __future__ import annotations

from rllib_ezm.execution.update_schedule import UpdateSchedule


def test_updates_are_due_from_the_start_of_learning_on() -> None:
    schedule = UpdateSchedule(replay_ratio=0.5, num_steps_before_learning=100)
    schedule.start_if_ready(99)
    assert schedule.num_due(1000) == 0, "learning has not started"
    schedule.start_if_ready(104)
    assert schedule.learning_start == 104
    assert [schedule.num_due(steps) for steps in (104, 105, 106, 111)] == [0, 0, 1, 3]
    schedule.num_updates = 3
    assert schedule.measured_ratio(111) == 3 / 7
    schedule.start_if_ready(500)
    assert schedule.learning_start == 104, "it starts once"


def test_without_its_buffer_a_run_waits_again() -> None:
    schedule = UpdateSchedule(replay_ratio=2.0, num_steps_before_learning=10)
    schedule.start_if_ready(10)
    schedule.num_updates = 7
    schedule.wait_again(50)
    schedule.start_if_ready(59)
    assert schedule.num_due(59) == 7
    schedule.start_if_ready(60)
    assert schedule.num_due(63) == 7 + 6


def test_a_restored_schedule_goes_on() -> None:
    schedule = UpdateSchedule(replay_ratio=0.3, num_steps_before_learning=5)
    schedule.start_if_ready(5)
    schedule.num_updates = 2
    other = UpdateSchedule(replay_ratio=0.3, num_steps_before_learning=5)
    other.set_state(schedule.get_state(), 20)
    assert other.get_state() == schedule.get_state()
    assert [other.num_due(s) for s in (5, 20, 40)] == [schedule.num_due(s) for s in (5, 20, 40)]


def test_another_ratio_holds_from_the_restore_on() -> None:
    schedule = UpdateSchedule(replay_ratio=0.5, num_steps_before_learning=5)
    schedule.start_if_ready(10)
    schedule.num_updates = 9
    other = UpdateSchedule(replay_ratio=2.0, num_steps_before_learning=5)
    other.set_state(schedule.get_state(), 30)
    assert [other.num_due(steps) for steps in (30, 31, 35)] == [10, 12, 20]
    third = UpdateSchedule(replay_ratio=0.1, num_steps_before_learning=5)
    third.set_state(other.get_state(), 35)
    assert [third.num_due(steps) for steps in (35, 45)] == [20, 21]
    waiting = UpdateSchedule(replay_ratio=2.0, num_steps_before_learning=50)
    waiting.set_state(UpdateSchedule(0.5, 50).get_state(), 40)
    waiting.start_if_ready(50)
    assert waiting.num_due(51) == 2
