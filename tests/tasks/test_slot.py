from __future__ import annotations

import functools

import gymnasium as gym
import numpy as np
import pytest
from helpers.faulty_env import FAULTY_STEP, LENGTH, FaultyEnv
from helpers.scripted_env import ScriptedEnv

from rllib_ezm.tasks import EnvironmentFailedError, TaskSpec, task_set
from rllib_ezm.tasks.slot import MAX_STEPS_WITHOUT_LIMIT, TaskSlot


class SeededEnv(gym.Env):
    """The first observation is drawn with the seed of the reset; two steps an episode."""

    def __init__(self, obs_dim: int = 1, render_mode: str | None = None) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (obs_dim,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.render_mode = render_mode
        self.closed = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.t = 0
        return self.np_random.normal(size=self.observation_space.shape), {}

    def step(self, action):
        self.t += 1
        return np.zeros(self.observation_space.shape), 1.0, False, self.t == 2, {}

    def render(self):
        return f"{self.render_mode} of {self.observation_space.shape[0]} dims"

    def close(self):
        self.closed = True


def seeded_tasks():
    return task_set(
        [TaskSpec("one", SeededEnv), TaskSpec("two", functools.partial(SeededEnv, obs_dim=2))]
    )


def first_observations(slot, seed, tasks_played):
    played = []
    for i, task in enumerate(tasks_played):
        slot.next_task = task
        obs, _ = slot.reset(seed=seed if i == 0 else None)
        played.append((int(obs["task_id"]), obs["obs"].tolist()))
    return played


def test_reset_switches_to_the_next_task_and_not_before():
    slot = TaskSlot(seeded_tasks(), 0)
    obs, info = slot.reset(seed=0)
    assert (obs["task_id"], info) == (0, {})
    slot.next_task = 1
    obs, reward, terminated, truncated, _ = slot.step(np.zeros(1))
    assert (obs["task_id"], reward, terminated, truncated) == (0, 1.0, False, False)
    obs, _ = slot.reset()
    assert obs["task_id"] == 1
    assert slot.step(np.zeros(1))[0]["task_id"] == 1


def test_every_task_shows_the_set_s_spaces():
    tasks = seeded_tasks()
    slot = TaskSlot(tasks, 1)
    assert slot.observation_space == tasks.observation_space
    assert slot.action_space == tasks.action_space
    for task in (1, 0):
        slot.next_task = task
        obs, _ = slot.reset(seed=0)
        assert slot.observation_space.contains(obs)
        np.testing.assert_array_equal(obs["action_mask"], tasks.action_mask[task])


def test_one_seed_fixes_every_later_episode():
    played = [0, 1, 1, 0, 0]
    tasks = seeded_tasks()
    episodes = first_observations(TaskSlot(tasks, 0), 7, played)
    assert [task for task, _ in episodes] == played
    assert first_observations(TaskSlot(tasks, 0), 7, played) == episodes
    assert first_observations(TaskSlot(tasks, 0), 8, played) != episodes
    # Episodes of one slot have seeds of their own.
    starts = [tuple(obs) for _, obs in episodes]
    assert len(set(starts)) == len(starts)


def test_a_slot_that_was_used_before_replays_from_its_seed():
    slot = TaskSlot(seeded_tasks(), 0)
    first_observations(slot, 3, [1, 0, 1])
    played = [0, 1, 0]
    fresh = TaskSlot(seeded_tasks(), 0)
    assert first_observations(slot, 7, played) == first_observations(fresh, 7, played)


def test_each_environment_is_built_once_and_only_when_played():
    built = []

    def make():
        built.append(SeededEnv())
        return built[-1]

    tasks = task_set([TaskSpec("a", make), TaskSpec("b", make)])
    built.clear()
    slot = TaskSlot(tasks, 0)
    assert not built
    for _ in range(3):
        slot.reset(seed=0)
    assert len(built) == 1
    slot.next_task = 1
    slot.reset()
    assert len(built) == 2


def test_close_closes_every_environment():
    built = []

    def make():
        built.append(SeededEnv())
        return built[-1]

    slot = TaskSlot(task_set([TaskSpec("a", make), TaskSpec("b", make)]), 0)
    built.clear()
    first_observations(slot, 0, [0, 1])
    slot.close()
    assert [env.closed for env in built] == [True, True]
    with pytest.raises(RuntimeError, match=r"Call reset\(\) before"):
        slot.step(np.zeros(1))
    slot.reset()
    assert len(built) == 3


def test_step_and_render_before_reset_say_what_to_do():
    slot = TaskSlot(seeded_tasks(), 0)
    with pytest.raises(RuntimeError, match=r"Call reset\(\) before step\(\) or render\(\)"):
        slot.step(np.zeros(1))
    with pytest.raises(RuntimeError, match=r"Call reset\(\) before step\(\) or render\(\)"):
        slot.render()


def test_render_shows_the_task_being_played():
    slot = TaskSlot(seeded_tasks(), 1, render_mode="ansi")
    slot.reset(seed=0)
    assert slot.render() == "ansi of 2 dims"


@pytest.mark.parametrize(("termination", "ends"), [("respect", True), ("ignore", False)])
def test_termination_reaches_the_environment(termination, ends):
    env = functools.partial(ScriptedEnv, terminate_at=1)
    slot = TaskSlot(task_set([TaskSpec("a", env, max_episode_steps=3)]), 0, termination)
    slot.reset(seed=0)
    assert slot.step(np.zeros(1))[2] is ends


def play(slot, steps):
    """Steps and resets as a vector environment does; returns the infos about failures."""
    infos, done = [], True
    for _ in range(steps):
        if done:
            _, info = slot.reset()
            done = False
        else:
            _, _, terminated, truncated, info = slot.step(np.zeros(1))
            done = terminated or truncated
        found = {key: info[key] for key in ("env_failures", "physics_error") if key in info}
        infos += [found] if found else []
    return infos


def test_an_environment_that_raises_is_built_again(tmp_path):
    make = functools.partial(FaultyEnv, "step raises", str(tmp_path / "flag"))
    slot = TaskSlot(task_set([TaskSpec("a", make)]), 0)
    slot.reset(seed=0)
    failed = slot._current
    steps = [slot.step(np.zeros(1)) for _ in range(FAULTY_STEP)]
    obs, reward, terminated, truncated, info = steps[-1]
    np.testing.assert_array_equal(obs["obs"], steps[-2][0]["obs"])
    assert (reward, terminated, truncated, info) == (0.0, False, True, {"env_failures": 1})
    assert slot.reset()[1] == {}
    assert slot._current is not failed
    assert play(slot, 3 * LENGTH) == []


def test_a_start_that_fails_is_tried_again_with_another_seed(tmp_path):
    make = functools.partial(FaultyEnv, "reset raises", str(tmp_path / "flag"))
    slot = TaskSlot(task_set([TaskSpec("a", make)]), 0)
    assert play(slot, 1 + LENGTH) == []
    assert play(slot, 3 * LENGTH) == [{"env_failures": 1}]

    built = []

    def make_seldom():
        built.append(FaultyEnv())
        if len(built) in (2, 3):
            raise OSError("no licence left")
        return built[-1]

    slot = TaskSlot(task_set([TaskSpec("a", make_seldom)]), 0)
    assert play(slot, 3 * LENGTH) == [{"env_failures": 2}]


def test_too_many_failures_in_a_row_are_an_error_that_names_the_fix():
    tasks = task_set([TaskSpec("a", functools.partial(FaultyEnv, "always"))])
    slot = TaskSlot(tasks, 0, max_consecutive_failures=3)
    assert play(slot, 2 * (1 + FAULTY_STEP)) == [{"env_failures": 1}] * 2
    with pytest.raises(
        EnvironmentFailedError,
        match=r"^a: step\(\) raised ValueError: no way to .*failures in a row: 3 .*Fix the env",
    ):
        play(slot, 1 + FAULTY_STEP)


def test_failures_with_good_episodes_in_between_are_no_error():
    """Every new environment of this task plays one episode and fails in its second reset."""
    tasks = task_set([TaskSpec("a", functools.partial(FaultyEnv, "reset raises"))])
    slot = TaskSlot(tasks, 0, max_consecutive_failures=2)
    assert play(slot, 10 * (1 + LENGTH)) == [{"env_failures": 1}] * 9


def test_failures_count_for_their_own_task_only():
    tasks = task_set(
        [TaskSpec("good", FaultyEnv), TaskSpec("bad", functools.partial(FaultyEnv, "always"))]
    )
    slot = TaskSlot(tasks, 1, max_consecutive_failures=2)
    assert play(slot, 1 + FAULTY_STEP) == [{"env_failures": 1}]
    slot.next_task = 0
    assert play(slot, 1 + LENGTH) == []
    slot.next_task = 1
    with pytest.raises(EnvironmentFailedError, match="failures in a row: 2 "):
        play(slot, 1 + FAULTY_STEP)


def test_rewards_that_are_never_finite_are_an_error_that_names_the_task():
    make = functools.partial(ScriptedEnv, bad_reward_at=1)
    slot = TaskSlot(task_set([TaskSpec("a", make)]), 0, max_consecutive_failures=3)
    assert play(slot, 4) == [{"physics_error": True}] * 2
    with pytest.raises(
        EnvironmentFailedError,
        match=r"^a: 3 episodes in a row .* broke down in their first decision \(reward inf, .*Fix",
    ):
        play(slot, 2)


def test_breakdowns_with_a_good_decision_in_between_are_no_error():
    make = functools.partial(ScriptedEnv, bad_reward_at=2)
    slot = TaskSlot(task_set([TaskSpec("a", make)]), 0, max_consecutive_failures=2)
    assert play(slot, 3 * 5) == [{"physics_error": True}] * 5


@pytest.mark.parametrize("limit", [None, 10_100])
def test_an_episode_without_end_is_an_error_that_names_the_option(limit):
    spec = TaskSpec("a", ScriptedEnv, action_repeat=2, max_episode_steps=limit)
    slot = TaskSlot(task_set([spec]), 0)
    assert play(slot, MAX_STEPS_WITHOUT_LIMIT // 2) == []
    if limit is not None:
        assert play(slot, 100) == []
        return
    with pytest.raises(
        EnvironmentFailedError, match=r"^a: an episode has not ended .*\"max_episode_steps\": 1000"
    ):
        slot.step(np.zeros(1))
