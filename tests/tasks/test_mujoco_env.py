from __future__ import annotations

import gc
import pickle
import weakref

import cloudpickle
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer
from helpers.tiny_robot import FULL_REWARD, TinyRobot

from rllib_ezm.tasks import GuardedMujocoEnv, TaskSpec, task_set
from rllib_ezm.tasks.padding import PHYSICS_ERROR

ACTION = np.full(2, 0.5)


@pytest.fixture(autouse=True)
def _log_of_mujoco_goes_to_a_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_env(robot=TinyRobot, **kwargs):
    return GuardedMujocoEnv(robot, "tiny", **kwargs)


def rollout(env, seed, steps=5):
    """Returns the observations of two episodes."""
    observations = [env.reset(seed=seed)[0]]
    observations += [env.step(ACTION)[0] for _ in range(steps)]
    return np.stack([*observations, env.reset()[0]])


def test_spaces_and_time():
    env = make_env()
    assert env.observation_space.shape == (5,)
    assert env.observation_space.dtype == np.float32
    assert env.action_space.high.tolist() == [1.0, 2.0]
    assert env.metadata["render_fps"] == 50
    obs, _ = env.reset(seed=0)
    assert obs.dtype == env.step(ACTION)[0].dtype == np.float32


@pytest.mark.parametrize("steps_before", [0, 1, 20])
@pytest.mark.parametrize("termination", ["respect", "ignore"])
def test_a_breakdown_truncates_with_reward_0_and_the_last_good_observation(
    steps_before, termination
):
    spec = TaskSpec("tiny", make_env, max_episode_steps=1000)
    env = task_set([spec]).make(0, termination=termination)
    obs, _ = env.reset(seed=0)
    for _ in range(steps_before):
        obs, reward, terminated, truncated, info = env.step(ACTION)
        assert (reward, terminated, truncated) == (FULL_REWARD, False, False)
        assert PHYSICS_ERROR not in info
    robot = env.unwrapped._env
    robot.break_down()
    next_obs, reward, terminated, truncated, info = env.step(ACTION)
    assert np.isfinite(robot.data.qpos).all(), "MuJoCo hides the breakdown"
    assert robot.data.time < 0.021, "MuJoCo started its clock again"
    np.testing.assert_array_equal(next_obs["obs"], obs["obs"])
    assert (reward, terminated, truncated, info[PHYSICS_ERROR]) == (0.0, False, True, True)
    env.reset()
    _, reward, terminated, truncated, info = env.step(ACTION)
    assert (reward, terminated, truncated) == (FULL_REWARD, False, False)
    assert PHYSICS_ERROR not in info


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_actions_are_refused(bad):
    env = make_env()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="tiny: the action must be finite"):
        env.step(np.array([0.0, bad]))


def test_large_actions_are_clipped_to_the_bounds():
    env, other = make_env(), make_env()
    env.reset(seed=0)
    other.reset(seed=0)
    clipped = env.step(np.array([1e6, -1e6]))[0]
    np.testing.assert_array_equal(clipped, other.step(np.array([1.0, -2.0]))[0])


def test_a_seed_fixes_all_episodes_and_leaves_numpys_generator_alone():
    env, other = make_env(), make_env()
    other.reset()
    np.random.seed(5)
    expected = np.random.uniform(size=3)
    np.random.seed(5)
    first = rollout(env, seed=3)
    np.testing.assert_array_equal(np.random.uniform(size=3), expected)
    np.testing.assert_array_equal(rollout(other, seed=3), first)
    assert first[0, -1] != first[-1, -1], "every episode draws its own goal"
    assert rollout(env, seed=4)[0, -1] != first[0, -1]


@pytest.mark.parametrize("library", [pickle, cloudpickle])
def test_pickling_before_and_after_use(library):
    env = make_env(render_mode="rgb_array")
    fresh = library.loads(library.dumps(env))
    expected = rollout(env, seed=5)
    for copy in (fresh, library.loads(library.dumps(env))):
        assert copy.render_mode == "rgb_array"
        np.testing.assert_array_equal(rollout(copy, seed=5), expected)


def test_step_needs_a_reset():
    with pytest.raises(RuntimeError, match=r"tiny: no running episode; call reset\(\) first"):
        make_env().step(ACTION)


class Part:
    def __init__(self, env):
        self.env = env


class Knot(TinyRobot):
    """Holds itself, as HumanoidBench's environment does through its robot and its task."""

    def __init__(self):
        super().__init__()
        self.robot = Part(self)


def test_a_closed_environment_is_freed_at_once():
    env = make_env(Knot)
    env.reset(seed=0)
    robot = weakref.ref(env._env.robot)
    gc.disable()
    try:
        env.close()
        assert robot() is None
    finally:
        gc.enable()
    env.close()


def test_no_opengl_context_before_the_first_frame(monkeypatch):
    def no_context(renderer, render_mode):
        raise mujoco.FatalError("no OpenGL here")

    monkeypatch.setattr(MujocoRenderer, "_get_viewer", no_context)
    silent, env = make_env(), make_env(render_mode="rgb_array")
    silent.reset(seed=0)
    assert silent.render() is None
    env.reset(seed=0)
    env.step(ACTION)
    with pytest.raises(RuntimeError, match="MUJOCO_GL=egl"):
        env.render()
    env.close()
    with pytest.raises(ValueError, match="rgb_array"):
        make_env(render_mode="human")
