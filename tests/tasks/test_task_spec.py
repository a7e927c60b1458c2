from __future__ import annotations

import functools
import pickle
import sys

import pytest
from gymnasium.wrappers import TimeLimit
from helpers.scripted_env import ScriptedEnv

from rllib_ezm.tasks import (
    EnvironmentFailedError,
    TaskSpec,
    register_prefix,
    register_task,
    resolve_task,
    spec,
    task_set,
)


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(spec, "_USER_TASKS", {})
    monkeypatch.setattr(spec, "_FAMILIES", dict(spec._FAMILIES))


def test_normalized_score_eq13():
    task = TaskSpec("t", ScriptedEnv, random_score=10.0, success_score=810.0)
    assert task.normalized_score(10.0) == 0.0
    assert task.normalized_score(810.0) == 1.0
    assert task.normalized_score(410.0) == 0.5
    assert task.normalized_score(-70.0) == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "non-empty"),
        ({"name": "a--b"}, "--"),
        ({"make": 3}, "callable"),
        ({"random_score": 1.0, "success_score": 1.0}, "greater than"),
        ({"success_score": float("nan")}, "greater than"),
        ({"action_repeat": 0}, "action_repeat must be an int >= 1"),
        ({"action_repeat": None}, "action_repeat must be an int >= 1"),
        ({"max_episode_steps": 0}, "max_episode_steps must be an int >= 1"),
        ({"max_episode_steps": 10.5}, "max_episode_steps must be an int >= 1"),
        ({"info_metrics": "success"}, "must be a list of different keys"),
        ({"info_metrics": ["a", "a"]}, "must be a list of different keys"),
        ({"info_metrics": ["a--b"]}, "must be a list of different keys"),
        ({"info_metrics": [3]}, "must be a list of different keys"),
    ],
)
def test_spec_refuses_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        TaskSpec(**{"name": "t", "make": ScriptedEnv, **fields})


def test_build_applies_the_time_limit_once():
    env = TaskSpec("t", ScriptedEnv, max_episode_steps=3).build()
    assert isinstance(env, TimeLimit)
    env.reset()
    action = env.action_space.sample()
    assert [env.step(action)[3] for _ in range(3)] == [False, False, True]
    assert type(TaskSpec("t", ScriptedEnv).build()) is ScriptedEnv


def test_build_passes_the_render_mode_only_when_asked():
    calls = []

    def make(**kwargs):
        calls.append(kwargs)
        return ScriptedEnv(**kwargs)

    task = TaskSpec("t", make)
    task.build()
    assert task.build("rgb_array").render_mode == "rgb_array"
    assert calls == [{}, {"render_mode": "rgb_array"}]


def test_registered_task_resolves_by_name_and_in_a_dict():
    made = register_task("mine", ScriptedEnv, random_score=-5.0, success_score=5.0, action_repeat=2)
    assert resolve_task("mine") is made
    changed = resolve_task({"name": "mine", "action_repeat": 4, "max_episode_steps": 7})
    assert (changed.action_repeat, changed.max_episode_steps) == (4, 7)
    assert (changed.random_score, changed.make) == (-5.0, ScriptedEnv)
    assert made.action_repeat == 2


def test_keyword_options_win_and_none_keeps_the_default():
    register_task("mine", ScriptedEnv, max_episode_steps=9)
    task = {"name": "mine", "action_repeat": 2, "max_episode_steps": None}
    resolved = resolve_task(task, action_repeat=3)
    assert (resolved.action_repeat, resolved.max_episode_steps) == (3, 9)
    assert task == {"name": "mine", "action_repeat": 2, "max_episode_steps": None}


def test_a_spec_resolves_to_itself_or_takes_options():
    task = TaskSpec("t", ScriptedEnv)
    assert resolve_task(task) is task
    assert resolve_task(task, success_score=700.0).success_score == 700.0
    with pytest.raises(ValueError, match="no option 'env_kwargs'"):
        resolve_task(task, env_kwargs={})


def test_registering_twice_needs_overwrite():
    register_task("mine", ScriptedEnv)
    with pytest.raises(ValueError, match="overwrite=True"):
        register_task("mine", ScriptedEnv)
    register_task("mine", ScriptedEnv, action_repeat=5, overwrite=True)
    assert resolve_task("mine").action_repeat == 5


def test_user_names_may_have_colons_but_not_a_known_prefix():
    register_task("lab:arm", ScriptedEnv)
    assert resolve_task("lab:arm").name == "lab:arm"
    with pytest.raises(ValueError, match='"dmc:" is reserved'):
        register_task("dmc:mine", ScriptedEnv)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("walker-run", "dmc:walker-run"),
        ("dmc:walker_run", "dmc:walker-run"),
        ("dmc:walker-rnu", "dmc:walker-run"),
        ("dmc:", "dmc:"),
        ("gym:Pendulum-v9", "gym:Pendulum-v1"),
        ("my-tusk", "my-task"),
    ],
)
def test_unknown_names_list_near_matches_and_prefixes(name, suggestion):
    register_task("my-task", ScriptedEnv)
    with pytest.raises(ValueError, match="Unknown task") as error:
        resolve_task(name)
    message = str(error.value)
    assert suggestion in message
    assert "Known prefixes: dmc:, gym:" in message
    assert "your own tasks: my-task" in message


def test_metrics_are_an_option_of_every_task():
    register_task("mine", ScriptedEnv, info_metrics=["success"])
    assert resolve_task("mine").info_metrics == ("success",)
    task = resolve_task({"name": "gym:Pendulum-v1", "info_metrics": ["a", "b"]})
    assert task.info_metrics == ("a", "b")
    assert len({task, resolve_task(task)}) == 1, "hashable, whatever the metrics were given as"
    with pytest.raises(ValueError, match="no option 'description'"):
        resolve_task("mine", description="a task")


def test_unknown_options_are_named():
    with pytest.raises(ValueError, match="Did you mean action_repeat"):
        resolve_task({"name": "dmc:walker-run", "action_repeats": 2})


def test_wrong_types_are_refused():
    with pytest.raises(ValueError, match='needs a "name"'):
        resolve_task({"action_repeat": 2})
    with pytest.raises(TypeError, match="got int"):
        resolve_task(3)


def test_a_new_family_plugs_in_without_editing_the_registry():
    def resolve(rest, *, hands=False):
        if rest != "walk":
            return None
        make = functools.partial(ScriptedEnv, obs_shape=(5 if hands else 3,))
        return TaskSpec(f"toy:{rest}", make, max_episode_steps=1000)

    register_prefix("toy", resolve, lambda: ["toy:walk"], options=("hands",))
    assert resolve_task("toy:walk").build().observation_space.shape == (3,)
    with_hands = resolve_task({"name": "toy:walk", "hands": True, "max_episode_steps": 10})
    assert with_hands.build().observation_space.shape == (5,)
    assert with_hands.max_episode_steps == 10
    with pytest.raises(ValueError, match="Did you mean toy:walk"):
        resolve_task("toy:wolk")
    with pytest.raises(ValueError, match="already registered"):
        register_prefix("toy", resolve, list)
    with pytest.raises(ValueError, match="without a colon"):
        register_prefix("toy:", resolve, list)


def test_specs_pickle():
    task = resolve_task({"name": "dmc:cartpole-balance", "action_repeat": 2})
    copy = pickle.loads(pickle.dumps(task))
    assert (copy.name, copy.action_repeat, copy.max_episode_steps) == (
        "dmc:cartpole-balance",
        2,
        1000,
    )
    assert copy.build().observation_space == task.build().observation_space


def test_a_factory_that_exits_does_not_end_the_program():
    with pytest.raises(
        EnvironmentFailedError, match=r"^walker: building .* SystemExit: no licence"
    ):
        task_set([TaskSpec("walker", functools.partial(sys.exit, "no licence"))])
