from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from rllib_ezm.tasks import resolve_task, task_set
from rllib_ezm.tasks.spec import TaskSpec
from rllib_ezm.utils.errors import MissingPackageError


def test_pendulum_runs_with_the_registered_time_limit():
    spec = resolve_task("gym:Pendulum-v1")
    assert spec.max_episode_steps == 200
    env = spec.build()
    env.reset(seed=0)
    truncated = [env.step(np.zeros(1, np.float32))[3] for _ in range(200)]
    assert truncated == [False] * 199 + [True]


def test_the_normalized_score_is_the_return_unless_given():
    assert resolve_task("gym:Pendulum-v1").normalized_score(-123.0) == -123.0
    scored = resolve_task("gym:Pendulum-v1", random_score=-1200.0, success_score=-200.0)
    assert scored.normalized_score(-700.0) == 0.5


def test_max_episode_steps_can_exceed_the_registered_limit():
    env = resolve_task({"name": "gym:Pendulum-v1", "max_episode_steps": 250}).build()
    env.reset(seed=0)
    truncated = [env.step(np.zeros(1, np.float32))[3] for _ in range(250)]
    assert truncated == [False] * 249 + [True]


def test_env_kwargs_reach_gym_make():
    env = resolve_task({"name": "gym:Pendulum-v1", "env_kwargs": {"g": 1.5}}).build()
    assert env.unwrapped.g == 1.5


def test_render_mode_reaches_gym_make():
    env = task_set(["gym:Pendulum-v1"]).make(0, render_mode="rgb_array")
    assert env.render_mode == "rgb_array"


def test_discrete_actions_are_out_of_scope():
    with pytest.raises(ValueError, match=r"gym:CartPole-v1.*Discrete actions are out of scope"):
        task_set(["gym:CartPole-v1"])


def test_two_dimensional_observations_are_flattened(monkeypatch):
    class Grid(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (2, 3), np.float32)
        action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.arange(6, dtype=np.float32).reshape(2, 3) / 10, {}

    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    gym.register("EzmGrid-v0", entry_point=Grid)
    tasks = task_set(["gym:EzmGrid-v0"])
    assert tasks.obs_dims == (6,)
    obs, _ = tasks.make(0).reset()
    np.testing.assert_array_equal(obs["obs"], np.arange(6, dtype=np.float32) / 10)


def test_a_time_limit_among_the_env_kwargs_is_refused_with_its_place():
    with pytest.raises(ValueError, match="is an option of the task"):
        resolve_task("gym:Pendulum-v1", env_kwargs={"max_episode_steps": 5})
    assert resolve_task("gym:Pendulum-v1", max_episode_steps=5).max_episode_steps == 5


@pytest.mark.parametrize("env_id", ["Pendulum", "Pendulum-v9", "Pendulun-v1"])
def test_an_unknown_id_gets_near_matches(env_id):
    with pytest.raises(ValueError, match=r"Unknown task.*Did you mean gym:Pendulum-v1"):
        resolve_task(f"gym:{env_id}")


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    def without_box2d(*args, **kwargs):
        raise gym.error.DependencyNotInstalled('Box2D is missing: pip install "gymnasium[box2d]"')

    monkeypatch.setattr(gym, "make", without_box2d)
    with pytest.raises(MissingPackageError, match=r'LunarLander.*pip install "gymnasium\[box2d\]"'):
        _ = resolve_task("gym:LunarLanderContinuous-v3").dims


def test_a_module_that_a_task_of_ones_own_imports_is_named():
    def make():
        import no_such_module_anywhere  # noqa: F401

    with pytest.raises(MissingPackageError, match=r"'mine' needs .*no_such_module_anywhere"):
        TaskSpec("mine", make).build()
