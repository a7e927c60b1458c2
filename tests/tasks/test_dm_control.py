from __future__ import annotations

import pickle
import sys

import cloudpickle
import numpy as np
import pytest
from dm_control import suite

from rllib_ezm.tasks import DMControlEnv, resolve_task


def rollout(env, seed, steps=10):
    """Returns all observations and rewards of `steps` random steps, and of the next reset."""
    rng = np.random.default_rng(0)
    obs, _ = env.reset(seed=seed)
    observations, rewards = [obs], []
    for _ in range(steps):
        action = rng.uniform(env.action_space.low, env.action_space.high)
        obs, reward, *_ = env.step(action)
        observations.append(obs)
        rewards.append(reward)
    observations.append(env.reset()[0])
    return np.stack(observations), np.array(rewards)


@pytest.mark.parametrize(("domain", "task"), suite.ALL_TASKS)
def test_every_suite_task_resolves_and_builds(domain, task):
    spec = resolve_task(f"dmc:{domain}-{task}")
    env = spec.build()
    assert (spec.random_score, spec.success_score, spec.max_episode_steps) == (0.0, 1000.0, 1000)
    dm_env = env.unwrapped._env
    assert env.action_space.shape == dm_env.action_spec().shape
    size = sum(np.zeros(part.shape).size for part in dm_env.observation_spec().values())
    assert env.observation_space.shape == (size,)
    assert env.observation_space.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "obs_dim", "action_dim"),
    [
        ("walker-run", 24, 6),
        ("cartpole-balance_sparse", 5, 1),
        ("ball_in_cup-catch", 8, 2),
        ("reacher-easy", 6, 2),
        ("humanoid_CMU-stand", 137, 56),
    ],
)
def test_published_dims(name, obs_dim, action_dim):
    env = resolve_task(f"dmc:{name}").build()
    assert env.observation_space.shape == (obs_dim,)
    assert env.action_space.shape == (action_dim,)


def test_observation_and_reward_are_dm_controls_own():
    env = DMControlEnv("walker", "walk")
    reference = suite.load("walker", "walk")
    env.reset(seed=0)
    reference.reset()
    with reference.physics.reset_context():
        reference.physics.set_state(env._env.physics.get_state())
    action = np.linspace(-1, 1, 6)
    for _ in range(3):
        obs, reward, *_ = env.step(action)
        expected = reference.step(action)
    parts = expected.observation
    flat = np.concatenate([parts["orientations"], [parts["height"]], parts["velocity"]])
    np.testing.assert_allclose(obs, flat, rtol=1e-4, atol=1e-4)
    assert reward == pytest.approx(expected.reward, rel=1e-4)
    assert obs.dtype == np.float32


@pytest.mark.parametrize(
    "name",
    ["cartpole-swingup", "reacher-easy", "finger-turn_easy", "quadruped-escape", "fish-swim"],
)
def test_a_seed_fixes_the_episodes_whatever_came_before(name):
    env, other = resolve_task(f"dmc:{name}").build(), resolve_task(f"dmc:{name}").build()
    other.reset()
    first, again, elsewhere = rollout(env, 3), rollout(env, 3), rollout(other, 3)
    for copy in (again, elsewhere):
        np.testing.assert_array_equal(copy[0], first[0])
        np.testing.assert_array_equal(copy[1], first[1])
    assert not np.array_equal(rollout(env, 4)[0][0], first[0][0])


def test_without_a_seed_episodes_differ():
    envs = [DMControlEnv("reacher", "easy") for _ in range(2)]
    resets = [env.reset()[0] for env in envs for _ in range(2)]
    assert len({obs.tobytes() for obs in resets}) == 4


def test_seeds_beyond_32_bits_are_accepted():
    env = DMControlEnv("cartpole", "balance")
    first = env.reset(seed=2**40 + 1)[0]
    np.testing.assert_array_equal(env.reset(seed=2**40 + 1)[0], first)
    assert not np.array_equal(env.reset(seed=1)[0], first)


def test_randomly_drawn_models_are_the_same_in_every_instance():
    stiffness = [DMControlEnv("lqr", "lqr_2_1")._env.physics.model.jnt_stiffness for _ in range(2)]
    np.testing.assert_array_equal(stiffness[0], stiffness[1])


def test_own_time_limit_truncates_at_1000():
    env = DMControlEnv("cartpole", "balance")
    env.reset(seed=0)
    flags = [env.step(np.zeros(1))[2:4] for _ in range(1000)]
    assert flags[:-1] == [(False, False)] * 999
    assert flags[-1] == (False, True)


@pytest.mark.parametrize("limit", [7, 1003])
def test_max_episode_steps_shortens_or_extends_the_episode(limit):
    env = resolve_task({"name": "dmc:pendulum-swingup", "max_episode_steps": limit}).build()
    env.reset(seed=0)
    flags = [env.step(np.zeros(1))[2:4] for _ in range(limit)]
    assert flags == [(False, False)] * (limit - 1) + [(False, True)]


def test_discount_zero_is_a_termination():
    env = DMControlEnv("lqr", "lqr_2_1")
    env.reset(seed=0)
    assert env.step(np.zeros(1))[2:4] == (False, False)
    with env._env.physics.reset_context():
        env._env.physics.set_state(np.zeros(4))
    assert env.step(np.zeros(1))[2:4] == (True, False)


def test_step_needs_a_running_episode():
    env = DMControlEnv("cartpole", "balance")
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.step(np.zeros(1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_actions_are_refused(bad):
    env = DMControlEnv("reacher", "easy")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="dmc:reacher-easy: the action must be finite"):
        env.step(np.array([0.0, bad]))


def test_action_bounds_are_the_tasks_own():
    space = DMControlEnv("quadruped", "walk").action_space
    assert not np.array_equal(space.high, np.ones(12))
    unlimited = DMControlEnv("lqr", "lqr_2_1").action_space
    assert np.isinf(unlimited.low).all()
    assert np.isinf(unlimited.high).all()


@pytest.mark.parametrize("library", [pickle, cloudpickle])
def test_pickling_before_and_after_use(library):
    env = DMControlEnv("walker", "run", own_time_limit=False, render_size=(10, 20))
    fresh = library.loads(library.dumps(env))
    expected = rollout(env, 5)
    used = library.loads(library.dumps(env))
    for copy in (fresh, used):
        assert copy._render_size == (10, 20)
        np.testing.assert_array_equal(rollout(copy, 5)[0], expected[0])


def test_no_opengl_context_without_a_render_mode(monkeypatch):
    def no_context(physics):
        raise AssertionError("an OpenGL context was opened")

    engine = sys.modules["dm_control.mujoco.engine"]
    monkeypatch.setattr(engine.Physics, "_make_rendering_contexts", no_context)
    env = DMControlEnv("quadruped", "escape")
    env.reset(seed=0)
    assert env.render() is None
    env.close()


def test_render_returns_a_frame_or_names_the_fix():
    env = DMControlEnv("cartpole", "swingup", render_mode="rgb_array", render_size=(48, 64))
    assert env.metadata["render_fps"] == 100
    env.reset(seed=0)
    asked = {}

    def fake(**kwargs):
        asked.update(kwargs)
        return np.zeros((48, 64, 3), np.uint8)

    env._env.physics.render = fake
    assert env.render().shape == (48, 64, 3)
    assert asked == {"height": 48, "width": 64, "camera_id": 0}

    def broken(**kwargs):
        raise RuntimeError("no backend")

    env._env.physics.render = broken
    with pytest.raises(RuntimeError, match="MUJOCO_GL=egl"):
        env.render()


def test_unknown_render_mode_is_refused():
    with pytest.raises(ValueError, match="rgb_array"):
        DMControlEnv("cartpole", "swingup", render_mode="human")


def test_missing_dm_control_names_the_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control", None)
    monkeypatch.setitem(sys.modules, "dm_control.suite", None)
    with pytest.raises(ImportError, match="pip install 'dm-control"):
        resolve_task("dmc:walker-run")
    with pytest.raises(ValueError, match="Unknown task 'walker-run'"):
        resolve_task("walker-run")
