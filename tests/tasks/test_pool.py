from __future__ import annotations

import functools

import numpy as np
import pytest
from helpers.scripted_env import ScriptedEnv

from rllib_ezm.tasks import TaskSpec, task_set
from rllib_ezm.tasks.pool import EnvPool
from rllib_ezm.tasks.slot import TaskSlot


class Counted(ScriptedEnv):
    open_now = 0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        Counted.open_now += 1

    def close(self):
        Counted.open_now -= 1


@pytest.fixture
def tasks():
    tasks = task_set([TaskSpec(f"t{i}", Counted, max_episode_steps=9) for i in range(4)])
    assert Counted.open_now == 0, "a task set keeps no environment"
    yield tasks
    assert Counted.open_now == 0, "everything was closed"


def test_slots_that_switch_tasks_hold_a_bounded_number_of_environments(tasks):
    pool = EnvPool(tasks)
    slots = [TaskSlot(tasks, 0, pool=pool) for _ in range(6)]
    rng = np.random.default_rng(0)
    most = 0
    for _ in range(200):
        for slot in slots:
            slot.next_task = int(rng.integers(4))
            obs, _ = slot.reset()
            assert obs["task_id"] == slot.next_task
            assert slot.step(np.zeros(1))[0]["obs"].tolist() == [1.0, 1.0], "not another's episode"
        most = max(most, Counted.open_now)
    assert most <= 6 + 4
    for slot in slots:
        slot.close()


def test_an_idle_environment_is_used_again_and_the_longest_idle_one_goes_first(tasks):
    pool = EnvPool(tasks)
    envs = [pool.take(task_id) for task_id in (0, 1, 2, 3, 1)]
    for env in envs:
        pool.release(env)
    assert Counted.open_now == 4
    assert pool.take(1) is envs[4]
    assert pool.take(1) is envs[1]
    new = pool.take(0)
    assert new is not envs[0], "closed: it had been idle longest"
    for env in (envs[1], envs[4], new):
        env.close()
    pool.close()


def test_the_environments_follow_the_termination_setting():
    make = functools.partial(ScriptedEnv, terminate_at=1)
    tasks = task_set([TaskSpec("a", make, max_episode_steps=3)])
    for termination, ends in (("respect", True), ("ignore", False)):
        env = EnvPool(tasks, termination).take(0)
        env.reset(seed=0)
        assert env.step(np.zeros(1))[2] is ends
