from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from rllib_ezm.execution.learner_thread import LearnerThread, Update


def update(number: int) -> Update:
    return Update(batch={"x": np.array([number])}, env_steps=number, sampled_at=0)


def take(thread: LearnerThread, count: int) -> list[Update]:
    made: list[Update] = []
    while len(made) < count:
        made += thread.completed()
        time.sleep(0.001)
    return made


def test_updates_are_made_in_order_and_the_queue_is_bounded():
    began, gate, made = threading.Event(), threading.Event(), []

    def make(item: Update) -> None:
        began.set()
        gate.wait()
        made.append(int(item.batch["x"][0]))
        item.number = len(made)

    thread = LearnerThread(make, capacity=2)
    thread.start()
    thread.submit(update(0))
    began.wait()
    for number in (1, 2):
        assert thread.has_room()
        thread.submit(update(number))
    assert not thread.has_room()
    assert thread.completed() == []
    gate.set()
    results = take(thread, 3)
    thread.close()
    assert not thread.is_alive()
    assert made == [0, 1, 2]
    assert [(item.number, item.env_steps) for item in results] == [(1, 0), (2, 1), (3, 2)]
    assert all(item.seconds >= 0.0 for item in results)
    assert thread.idle_seconds > 0.0


def test_an_error_of_the_learners_is_raised_where_updates_are_taken():
    def make(item: Update) -> None:
        raise ValueError("a bad batch")

    thread = LearnerThread(make, capacity=1)
    thread.start()
    thread.submit(update(0))
    thread.join(timeout=10)
    with pytest.raises(ValueError, match="a bad batch"):
        thread.completed()
    thread.close()
