from __future__ import annotations

import re

import pytest

from rllib_ezm.tasks import resolve_task
from rllib_ezm.tasks.layout import match_tasks, read_layout, task_layout, write_layout
from rllib_ezm.utils.errors import UserError


def layout(*names, termination="respect", **options):
    return task_layout([resolve_task(name, **options) for name in names], termination)


PENDULUM, CARTPOLE = "gym:Pendulum-v1", "dmc:cartpole-balance"


def test_a_layout_by_hand():
    assert layout(PENDULUM, action_repeat=2, env_kwargs={"g": 9.5}) == [
        {
            "name": PENDULUM,
            "obs_dim": 3,
            "action_dim": 1,
            "action_repeat": 2,
            "termination": "respect",
            "env_kwargs": {"g": "9.5"},
        }
    ]


def test_the_same_tasks_are_found_whatever_their_order_and_time_limit(tmp_path):
    write_layout(tmp_path, layout(PENDULUM, CARTPOLE, "dmc:hopper-hop"))
    stored = read_layout(tmp_path)
    assert match_tasks(stored, stored) == [0, 1, 2]
    others = layout("dmc:hopper-hop", PENDULUM, CARTPOLE, max_episode_steps=7)
    assert match_tasks(stored, others) == [2, 0, 1]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((PENDULUM,), r"and this config has others: ['gym:Pendulum-v1']"),
        (("dmc:cartpole-swingup", PENDULUM), "and this config has others"),
        ((PENDULUM, "dmc:cartpole-swingup"), "and this config has others"),
    ],
)
def test_other_tasks_are_refused_with_both_lists(names, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        match_tasks(layout(PENDULUM, CARTPOLE), layout(*names))
    assert "['gym:Pendulum-v1', 'dmc:cartpole-balance']" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_repeat": 2}, "action_repeat 1 -> 2"),
        ({"env_kwargs": {"g": 3}}, "env_kwargs None -> {'g': '3'}"),
        ({"termination": "ignore"}, "termination 'respect' -> 'ignore'"),
    ],
)
def test_other_settings_of_the_same_task_are_refused(changes, message):
    with pytest.raises(UserError, match=re.escape(f"({PENDULUM}: {message})")):
        match_tasks(layout(PENDULUM), layout(PENDULUM, **changes))
