from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
from helpers.faulty_env import BAD_NUMBERS, FAULTY_STEP, FaultyEnv
from helpers.scripted_env import ScriptedEnv
from hypothesis import given
from hypothesis import strategies as st

from rllib_ezm.tasks import EnvironmentFailedError, PadTask, TaskSpec, resolve_task, task_set


def pad(env=None, **kwargs):
    return PadTask(
        env or ScriptedEnv(),
        **{"task_id": 1, "num_tasks": 3, "obs_dim": 4, "action_dim": 3, **kwargs},
    )


def test_spaces_and_padding():
    env = pad()
    assert env.observation_space == gym.spaces.Dict(
        {
            "obs": gym.spaces.Box(-np.inf, np.inf, (4,), np.float32),
            "task_id": gym.spaces.Discrete(3),
            "action_mask": gym.spaces.Box(0, 1, (3,), np.float32),
        }
    )
    assert env.action_space == gym.spaces.Box(-1, 1, (3,), np.float32)
    obs, info = env.reset(seed=0)
    assert info == {"note": "reset"}
    obs, reward, terminated, truncated, info = env.step(np.zeros(3, np.float32))
    assert env.observation_space.contains(obs)
    assert obs["obs"].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert obs["task_id"] == 1
    assert obs["action_mask"].tolist() == [1.0, 0.0, 0.0]
    assert (reward, terminated, truncated, info) == (1.0, False, False, {"note": "step"})


def test_a_step_does_not_change_earlier_observations():
    env = pad()
    first, _ = env.reset()
    first["action_mask"][:] = 7.0
    second, *_ = env.step(np.zeros(3, np.float32))
    assert first["obs"].tolist() == [0.0] * 4
    assert second["action_mask"].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ([-1.0, -1.0, 0.0], [-2.0, 0.0]),
        ([1.0, 1.0, 0.0], [2.0, 10.0]),
        ([0.0, 0.0, 0.0], [0.0, 5.0]),
        ([0.5, -0.5, 0.9], [1.0, 2.5]),
        ([3.0, -3.0, np.nan], [2.0, 0.0]),
    ],
)
def test_actions_scale_to_the_environments_bounds(action, expected):
    env = pad(ScriptedEnv(low=(-2.0, 0.0), high=(2.0, 10.0)))
    env.reset()
    env.step(np.array(action, np.float32))
    received = env.unwrapped.actions[-1]
    assert received.dtype == np.float32
    assert received.tolist() == expected


@given(
    st.floats(-1e3, 1e3, width=32),
    st.floats(2.0**-10, 1e3, width=32),
    st.floats(-1, 1, width=32),
)
def test_scaled_actions_never_leave_the_bounds(low, width, action):
    env = pad(ScriptedEnv(low=(low,), high=(low + width,)))
    env.reset()
    env.step(np.full(3, action, np.float32))
    assert env.unwrapped.action_space.contains(env.unwrapped.actions[-1])


def test_multi_dimensional_boxes_are_flattened():
    env = ScriptedEnv(obs_shape=(2, 2))
    env.action_space = gym.spaces.Box(-1.0, 1.0, (1, 2), np.float32)
    padded = pad(env)
    padded.reset()
    obs, *_ = padded.step(np.array([0.25, -0.25, 1.0], np.float32))
    assert obs["obs"].tolist() == [1.0] * 4
    assert env.actions[-1].tolist() == [[0.25, -0.25]]


def test_terminated_and_truncated_stay_apart():
    for script, flags in (
        ({"terminate_at": 2}, (True, False)),
        ({"truncate_at": 2}, (False, True)),
    ):
        env = pad(ScriptedEnv(**script))
        env.reset()
        action = np.zeros(3, np.float32)
        assert env.step(action)[2:4] == (False, False)
        assert env.step(action)[2:4] == flags


def test_ignored_termination_does_not_cut_a_repeated_action_short():
    env = pad(ScriptedEnv(terminate_at=2, truncate_at=6), termination="ignore", action_repeat=3)
    env.reset()
    action = np.zeros(3, np.float32)
    assert env.step(action)[1:4] == (6.0, False, False)
    assert env.step(action)[1:4] == (15.0, False, True)


def test_respected_termination_cuts_a_repeated_action_short():
    env = pad(ScriptedEnv(terminate_at=2), action_repeat=3)
    env.reset()
    assert env.step(np.zeros(3, np.float32))[1:4] == (3.0, True, False)


@pytest.mark.parametrize("fault", BAD_NUMBERS)
def test_numbers_that_are_not_finite_end_the_episode_at_the_last_good_observation(fault):
    env = pad(FaultyEnv(fault))
    env.reset(seed=0)
    good = [env.step(np.zeros(3, np.float32)) for _ in range(FAULTY_STEP - 1)]
    assert [step[1:] for step in good] == [(t, False, False, {}) for t in range(1, FAULTY_STEP)]
    obs, reward, terminated, truncated, info = env.step(np.zeros(3, np.float32))
    np.testing.assert_array_equal(obs["obs"], good[-1][0]["obs"])
    assert (reward, terminated, truncated, info) == (0.0, False, True, {"physics_error": True})
    env.reset()
    assert env.step(np.zeros(3, np.float32))[1:] == (1.0, False, False, {})


class Reporting(ScriptedEnv):
    """Step t reports the t-th of the infos."""

    def __init__(self, *infos, **script):
        super().__init__(**script)
        self.infos = infos

    def step(self, action):
        *result, info = super().step(action)
        return *result, info | self.infos[self.t - 1]


def play(*infos, **kwargs):
    """Our part of an episode's infos whose steps report these, with the metric `x`."""
    script = {"truncate_at": len(infos), **kwargs.pop("script", {})}
    env = pad(Reporting(*infos, **script), info_metrics=("x",), name="walker", **kwargs)
    found = []
    for _ in range(2):
        assert env.reset()[1] == {"note": "reset"}
        found, done = [], False
        while not done:
            *_, terminated, truncated, info = env.step(np.zeros(3, np.float32))
            found.append({key: info[key] for key in info if key in ("physics_error", "info/x")})
            done = terminated or truncated
    return found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0, 1), 1.0),
        ((1, False), 0.0),
        ((np.bool_(True), np.float32(0.5)), 0.5),
        ((3, None), 3.0),
        ((3, np.nan), 3.0),
        ((3, np.inf), 3.0),
        ((1, np.array([[2]])), 2.0),
    ],
)
def test_a_metric_is_the_last_value_of_the_episode(values, expected):
    found = play(*({"x": value, "y": 7} for value in values))
    assert found == [{}, {"info/x": expected}]
    assert type(found[-1]["info/x"]) is float


def test_a_metric_that_a_step_lacks_keeps_its_value_and_may_be_missing_altogether():
    assert play({"x": 4}, {}, {"y": 1})[-1] == {"info/x": 4.0}
    assert play({"y": 4}, {"y": 1}) == [{}, {}]


def test_with_action_repeat_a_decision_reports_its_last_simulator_step():
    infos = [{"x": t} for t in range(5)]
    assert play(*infos, action_repeat=2) == [{}, {}, {"info/x": 4.0}]
    assert play({"x": 1}, {}, {}, {"x": 2}, {}, action_repeat=3) == [{}, {}]


def test_a_step_that_broke_down_reports_no_metric_and_the_episode_keeps_its_own():
    infos = [{"x": t} for t in range(1, 5)]
    expected = {"physics_error": True, "info/x": 2.0}
    assert play(*infos, script={"physics_error_at": 3})[-1] == expected
    assert play(*infos, script={"bad_obs_at": 3})[-1] == expected


def test_the_infos_of_the_environment_are_handed_on_as_they_are():
    first, own = {"hidden": [1, 2], "deep": {"a": object()}}, {"env_failures": 3, "info/x": "fake"}
    env = pad(Reporting(first, own | {"y": 2}), info_metrics=("x",))
    env.reset()
    info = env.step(np.zeros(3, np.float32))[-1]
    assert info == {"note": "step", **first}
    assert info["deep"] is first["deep"]
    info["hidden"] = None
    assert first["hidden"] == [1, 2]
    assert env.step(np.zeros(3, np.float32))[-1] == {"note": "step", "y": 2}, "our keys are ours"


@pytest.mark.parametrize("value", ["yes", [1, 2], np.zeros(2), {"a": 1}, 1 + 2j, [[1], [2, 3]]])
def test_a_metric_that_is_no_number_is_a_failure_of_the_environment(value):
    with pytest.raises(EnvironmentFailedError, match=r"walker: info\['x'\] is no number but"):
        play({"x": value})


def test_exceptions_of_the_environment_name_the_task_and_the_place():
    env = pad(FaultyEnv("always"), name="walker")
    env.reset()
    for _ in range(FAULTY_STEP - 1):
        env.step(np.zeros(3, np.float32))
    with pytest.raises(
        EnvironmentFailedError,
        match=r"walker: step\(\) raised ValueError: no way to step \(.*faulty_env.py:\d+\)",
    ) as error:
        env.step(np.zeros(3, np.float32))
    assert isinstance(error.value.__cause__, ValueError)
    env = pad(ScriptedEnv(bad_obs_at=0), name="walker")
    with pytest.raises(EnvironmentFailedError, match=r"walker: reset\(\) gave a non-finite .*\[0"):
        env.reset()


def test_non_finite_actions_are_refused():
    env = pad()
    env.reset()
    with pytest.raises(ValueError, match="task 1: the action must be finite"):
        env.step(np.array([np.nan, 0.0, 0.0], np.float32))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"task_id": 3}, r"task_id 3 is not in \[0, 3\)"),
        ({"obs_dim": 1}, "exceed the padded dims 1 and 3"),
        ({"action_dim": 0}, "exceed the padded dims 4 and 0"),
        ({"termination": "drop"}, 'must be "respect" or "ignore"'),
        ({"action_repeat": 0}, "action_repeat must be >= 1"),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        pad(**kwargs)


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        ("action_space", gym.spaces.Discrete(2), "Discrete actions are out of scope"),
        ("action_space", gym.spaces.Box(-1.0, np.inf, (1,)), "finite bounds"),
        ("action_space", gym.spaces.Box(0, 5, (1,), np.int64), "must be a float Box"),
        ("observation_space", gym.spaces.Dict(), "must be a Box"),
    ],
)
def test_spaces_that_cannot_be_padded_are_refused(space, value, message):
    env = ScriptedEnv()
    setattr(env, space, value)
    with pytest.raises(ValueError, match=message):
        pad(env)


def test_unlimited_actuators_of_dm_control_are_refused():
    with pytest.raises(ValueError, match="finite bounds"):
        pad(resolve_task("dmc:lqr-lqr_2_1").build())


def test_padded_dm_control_environment_pickles():
    env = pad(resolve_task("dmc:cartpole-balance").build(), obs_dim=9, action_repeat=2)
    copy = pickle.loads(pickle.dumps(env))
    np.testing.assert_array_equal(copy.reset(seed=1)[0]["obs"], env.reset(seed=1)[0]["obs"])
    action = np.full(3, 0.5, np.float32)
    assert copy.step(action)[1] == env.step(action)[1]


class ReturnsAnything(ScriptedEnv):
    """Returns the given observation and reward, and remembers the actions, which it changes."""

    def __init__(self, obs=None, reward=1.0):
        super().__init__()
        self.obs, self.reward, self.seen = obs, reward, []

    def step(self, action):
        self.seen.append(action.tolist())
        obs, _, *rest = super().step(action.copy())
        action *= 0.5
        return obs if self.obs is None else self.obs, self.reward, *rest


@pytest.mark.parametrize(
    "obs", [np.zeros(1), 0.0, np.zeros(3), np.zeros((2, 1)), np.array(["a", "b"]), [None, 1.0]]
)
def test_an_observation_of_another_shape_or_type_is_never_broadcast(obs):
    env = pad(ReturnsAnything(obs), name="walker")
    env.reset()
    with pytest.raises(EnvironmentFailedError, match=r"walker: step\(\).*observation must be num"):
        env.step(np.zeros(3, np.float32))


@pytest.mark.parametrize("repeat", [1, 2])
@pytest.mark.parametrize("reward", [None, "1", np.zeros(2), [1.0], 1j])
def test_a_reward_that_is_not_one_number_is_refused_as_such(reward, repeat):
    env = pad(ReturnsAnything(reward=reward), name="walker", action_repeat=repeat)
    env.reset()
    with pytest.raises(EnvironmentFailedError, match=r"walker: step\(\).*reward must be one n"):
        env.step(np.zeros(3, np.float32))


@pytest.mark.parametrize("reward", [np.ones(1), np.ones((1, 1)), np.float32(1), True, 1])
def test_a_reward_may_be_an_array_of_one_number(reward):
    env = pad(ReturnsAnything(reward=reward), action_repeat=2)
    env.reset()
    assert env.step(np.zeros(3, np.float32))[1] == 2.0


def test_an_environment_that_changes_its_action_gets_the_same_one_each_time():
    inner, action = ReturnsAnything(), np.ones(3, np.float32)
    env = pad(inner, action_repeat=4)
    env.reset()
    env.step(action)
    assert inner.seen == [[1.0]] * 4
    assert action.tolist() == [1.0] * 3


def test_an_environment_that_changes_its_observation_later_changes_none_that_was_returned():
    array = np.array([5.0, 6.0])
    env = pad(ReturnsAnything(array))
    env.reset()
    obs = env.step(np.zeros(3, np.float32))[0]
    array += 1.0
    assert obs["obs"].tolist() == [5.0, 6.0, 0.0, 0.0]


@pytest.mark.parametrize("bad", ["observation", "reward"])
def test_a_breakdown_in_the_middle_of_a_repeated_action_is_one(bad):
    class Breaks(ScriptedEnv):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            if self.t == 2:
                obs, reward = (obs * np.nan, reward) if bad == "observation" else (obs, np.nan)
            return obs, reward, *rest

    env = pad(Breaks(), action_repeat=4)
    env.reset()
    _, reward, terminated, truncated, info = env.step(np.zeros(3, np.float32))
    assert (reward, terminated, truncated, info) == (0.0, False, True, {"physics_error": True})
    assert env.unwrapped.t == 2


class GoalEnv(gym.Env):
    """The observation of Gymnasium-Robotics: a Dict of Boxes."""

    observation_space = gym.spaces.Dict(
        {
            "observation": gym.spaces.Box(-9, 9, (2,)),
            "achieved_goal": gym.spaces.Box(-9, 9, (1, 1)),
        }
    )
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        return {"achieved_goal": np.full((1, 1), 3.0), "observation": np.array([1.0, 2.0])}, {}

    def step(self, action):
        return self.reset()[0], 1.0, False, False, {}


@pytest.mark.parametrize("repeat", [1, 3])
def test_a_dict_of_boxes_is_flattened_in_the_order_of_its_keys(repeat):
    env = pad(GoalEnv(), action_repeat=repeat)
    obs, _ = env.reset()
    assert list(GoalEnv.observation_space) == ["achieved_goal", "observation"]
    assert obs["obs"].tolist() == [3.0, 1.0, 2.0, 0.0]
    assert env.step(np.zeros(3, np.float32))[0]["obs"].tolist() == [3.0, 1.0, 2.0, 0.0]


def test_the_advice_about_observations_and_bounds_works():
    inner = ScriptedEnv()
    inner.observation_space = gym.spaces.Tuple([gym.spaces.Box(-1, 1, (2,))] * 2)
    with pytest.raises(ValueError, match="FlattenObservation"):
        pad(inner)
    assert pad(gym.wrappers.FlattenObservation(inner)).own_obs_dim == 4
    inner = ScriptedEnv()
    inner.action_space = gym.spaces.Box(-np.inf, np.inf, (1,))
    with pytest.raises(ValueError, match=r"TransformAction\(env, lambda action: action"):
        pad(inner)
    box = gym.spaces.Box(-1.0, 1.0, inner.action_space.shape)
    env = pad(gym.wrappers.TransformAction(inner, lambda action: action, box))
    env.reset()
    env.step(np.ones(3, np.float32))


def test_bounds_that_are_equal_leave_one_action_and_reversed_ones_are_refused():
    inner = ReturnsAnything()
    inner.action_space = gym.spaces.Box(0.5, 0.5, (1,))
    env = pad(inner)
    env.reset()
    env.step(np.full(3, -1.0, np.float32))
    assert inner.seen == [[0.5]]
    inner.action_space = gym.spaces.Box(-1.0, 1.0, (1,))
    inner.action_space.low, inner.action_space.high = np.ones(1), -np.ones(1)
    with pytest.raises(ValueError, match="lower bounds above"):
        pad(inner)


class OldStep(ScriptedEnv):
    def step(self, action):
        obs, reward, terminated, _, info = super().step(action)
        return obs, reward, terminated, info


class OldReset(ScriptedEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options=options)[0]


class OldSeeding(ScriptedEnv):
    def reset(self):
        return np.zeros(2)


@pytest.mark.parametrize("max_episode_steps", [None, 5])
@pytest.mark.parametrize("repeat", [1, 2])
def test_the_step_of_the_old_gym_is_refused_with_the_fix(max_episode_steps, repeat):
    spec = TaskSpec("walker", OldStep, max_episode_steps=max_episode_steps, action_repeat=repeat)
    env = task_set([spec]).make(0)
    env.reset()
    with pytest.raises(EnvironmentFailedError, match=r"^walker: step\(\).*gym before 0.26: reset"):
        env.step(np.zeros(1, np.float32))


@pytest.mark.parametrize("max_episode_steps", [None, 5])
def test_the_reset_of_the_old_gym_is_refused_with_the_fix(max_episode_steps):
    spec = TaskSpec("walker", OldReset, max_episode_steps=max_episode_steps)
    with pytest.raises(EnvironmentFailedError, match=r"^walker: reset\(\).*gym before 0.26: reset"):
        task_set([spec]).make(0).reset()
    with pytest.raises(EnvironmentFailedError, match=r"^walker: reset\(\).*argument 'seed'"):
        task_set([TaskSpec("walker", OldSeeding)]).make(0).reset()


def test_what_is_no_environment_of_gymnasium_is_refused_at_the_start():
    class Old:
        observation_space = action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    with pytest.raises(
        ValueError, match=r"'walker': `make` must return a gymnasium.Env, got .*Old"
    ):
        task_set([TaskSpec("walker", Old, max_episode_steps=5)])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, np.uint8, bool])
def test_observations_of_any_kind_of_number_become_float32(dtype):
    env = pad(ReturnsAnything(np.array([1, 0], dtype)))
    env.reset()
    obs = env.step(np.zeros(3, np.float32))[0]["obs"]
    assert (obs.dtype, obs.tolist()) == (np.float32, [1.0, 0.0, 0.0, 0.0])
