from __future__ import annotations

import dataclasses
import functools
import pickle

import cloudpickle
import numpy as np
import pytest
from helpers.scripted_env import ScriptedEnv

from rllib_ezm.tasks import TaskSpec, task_set

TASKS = [
    "dmc:walker-run",
    {"name": "dmc:cartpole-swingup", "action_repeat": 2},
    "dmc:reacher-easy",
    "gym:Pendulum-v1",
]


def scripted(name, max_episode_steps=None, **script):
    return TaskSpec(
        name, functools.partial(ScriptedEnv, **script), max_episode_steps=max_episode_steps
    )


def test_heterogeneous_tasks_share_padded_dims():
    tasks = task_set(TASKS)
    assert tasks.names == (
        "dmc:walker-run",
        "dmc:cartpole-swingup",
        "dmc:reacher-easy",
        "gym:Pendulum-v1",
    )
    assert tasks.num_tasks == 4
    assert (tasks.obs_dims, tasks.action_dims) == ((24, 5, 6, 3), (6, 1, 2, 1))
    assert (tasks.obs_dim, tasks.action_dim) == (24, 6)
    assert tasks.obs_mask.shape == (4, 24)
    assert tasks.action_mask.dtype == tasks.obs_mask.dtype == np.float32
    assert tasks.obs_mask.sum(axis=1).tolist() == [24, 5, 6, 3]
    assert tasks.action_mask[2].tolist() == [1, 1, 0, 0, 0, 0]
    for task_id in range(tasks.num_tasks):
        env = tasks.make(task_id)
        obs, _ = env.reset(seed=0)
        assert env.observation_space == tasks.observation_space
        assert env.action_space == tasks.action_space
        assert tasks.observation_space.contains(obs)
        assert obs["task_id"] == task_id
        np.testing.assert_array_equal(obs["action_mask"], tasks.action_mask[task_id])
        np.testing.assert_array_equal(obs["obs"], obs["obs"] * tasks.obs_mask[task_id])


def test_max_episode_steps_counts_simulator_steps_before_action_repeat():
    task = {"name": "dmc:cartpole-swingup", "action_repeat": 4, "max_episode_steps": 10}
    env = task_set([task]).make(0)
    env.reset(seed=0)
    truncated = [env.step(np.zeros(1, np.float32))[3] for _ in range(3)]
    assert truncated == [False, False, True]


def test_action_repeat_equals_single_steps_added_up():
    single = task_set(["dmc:reacher-easy"]).make(0)
    double = task_set([{"name": "dmc:reacher-easy", "action_repeat": 2}]).make(0)
    single.reset(seed=7)
    double.reset(seed=7)
    action = np.array([0.3, -0.8], np.float32)
    for _ in range(5):
        rewards = [single.step(action) for _ in range(2)]
        obs, reward, *_ = double.step(action)
        assert reward == sum(step[1] for step in rewards)
        np.testing.assert_array_equal(obs["obs"], rewards[-1][0]["obs"])


def test_probed_environments_are_closed():
    closed = []

    class Closing(ScriptedEnv):
        def close(self):
            closed.append(self)

    task_set([TaskSpec("a", Closing), TaskSpec("b", Closing)])
    assert len(closed) == 2
    with pytest.raises(ValueError, match="finite bounds"):
        task_set([TaskSpec("c", functools.partial(Closing, high=(np.inf,)))])
    assert len(closed) == 3


def test_pickling_is_cheap_and_keeps_the_tasks():
    tasks = task_set(TASKS)
    data = pickle.dumps(tasks)
    assert len(data) < 3000
    copy = pickle.loads(data)
    assert (copy.names, copy.obs_dims, copy.action_dims) == (
        tasks.names,
        tasks.obs_dims,
        tasks.action_dims,
    )
    np.testing.assert_array_equal(
        copy.make(2).reset(seed=3)[0]["obs"], tasks.make(2).reset(seed=3)[0]["obs"]
    )
    local = task_set([TaskSpec("local", lambda: ScriptedEnv(obs_shape=(7,)))])
    assert cloudpickle.loads(cloudpickle.dumps(local)).make(0).own_obs_dim == 7


def test_bad_lists_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        task_set([])
    with pytest.raises(ValueError, match=r"write \['dmc:walker-run'\]"):
        task_set("dmc:walker-run")
    with pytest.raises(ValueError, match="more than once: a\\."):
        task_set([scripted("a"), scripted("b"), scripted("a")])


def test_a_variant_of_a_task_needs_only_its_own_name():
    spec = scripted("a")
    assert task_set([spec, dataclasses.replace(spec, name="a2", action_repeat=2)]).num_tasks == 2


def test_ignoring_terminations_needs_a_time_limit():
    tasks = task_set([scripted("a", terminate_at=2), scripted("b", 4, terminate_at=2)])
    with pytest.raises(ValueError, match="set its max_episode_steps"):
        tasks.make(0, termination="ignore")
    env = tasks.make(1, termination="ignore")
    env.reset()
    flags = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(4)]
    assert flags == [(False, False)] * 3 + [(False, True)]


def test_unknown_task_ids_are_refused():
    tasks = task_set([scripted("a")])
    with pytest.raises(ValueError, match="task_id 1"):
        tasks.make(1)
    with pytest.raises(ValueError, match="task_id -1"):
        tasks.make(-1)
