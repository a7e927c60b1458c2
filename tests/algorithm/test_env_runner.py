from __future__ import annotations

import functools
import itertools
import pickle
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.faulty_env import FaultyEnv
from helpers.scripted_env import ScriptedEnv
from helpers.tiny import scripted_task, tiny_config
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_ezm.algorithm.batches import to_chunk
from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.algorithm.env_runner import (
    EPISODE_INDEX,
    TASK_ID,
    Collected,
    MultiTaskEnvRunner,
    PlayedEpisode,
    count_env_failures,
    ended_by_physics_error,
)
from rllib_ezm.replay import EpisodeChunk, MultiTaskReplayBuffer
from rllib_ezm.tasks import EnvironmentFailedError, TaskSpec

LENGTHS = (3, 17, 40)


def unequal_tasks() -> list[Any]:
    """Three tasks with episodes of 3, 17 and 40 decisions and different dims."""
    return [
        scripted_task(3, obs_dim=2, action_dim=1),
        scripted_task(17, obs_dim=3, action_dim=2, terminates=False),
        scripted_task(40, obs_dim=1, action_dim=3),
    ]


def make_runners(config: EZMConfig, count: int) -> list[MultiTaskEnvRunner]:
    """`count` env runners as Ray actors would be, without Ray; 0 is the local one."""
    config = config.copy(copy_frozen=False).env_runners(num_env_runners=count)
    if count == 0:
        return [MultiTaskEnvRunner(config=config, worker_index=0, num_workers=0)]
    return [
        MultiTaskEnvRunner(config=config, worker_index=index + 1, num_workers=count)
        for index in range(count)
    ]


def steps_per_task(chunks: list[SingleAgentEpisode], num_tasks: int) -> np.ndarray:
    steps = np.zeros(num_tasks, dtype=int)
    for chunk in chunks:
        steps[chunk.custom_data[TASK_ID]] += len(chunk)
    return steps


@pytest.mark.parametrize(
    ("runners", "copies"), [(0, 1), (0, 2), (1, 3), (2, 1), (3, 2), (4, 1), (5, 1)]
)
def test_tasks_get_equal_shares_of_env_steps(runners: int, copies: int) -> None:
    config = tiny_config(unequal_tasks(), envs_per_task=copies)
    total = np.zeros(3, dtype=int)
    total_bound = 0
    for runner in make_runners(config, runners):
        chunks = []
        for _ in range(40):
            chunks += runner.sample(num_timesteps=20 * runner.num_envs, random_actions=True)
        steps = steps_per_task(chunks, 3)
        bound = runner.num_envs * max(LENGTHS)
        assert steps.sum() > 6 * bound, "too short a run to tell balance from imbalance"
        assert steps.max() - steps.min() < bound
        total += steps
        total_bound += bound
        runner.stop()
    assert total.max() - total.min() < total_bound


def test_most_slots_stay_with_their_task() -> None:
    """Always taking the task with the fewest steps would switch after 95 % of these episodes."""
    (runner,) = make_runners(tiny_config([scripted_task(n) for n in (5, 6, 7, 40)]), 0)
    played: dict[int, list[int]] = defaultdict(list)
    schedule = runner._schedule

    def record(env_index: int, ongoing: list[Any]) -> int:
        task = schedule(env_index, ongoing)
        played[env_index].append(task)
        return task

    runner._schedule = record
    for _ in range(20):
        runner.sample(num_timesteps=4 * 50, random_actions=True)
    stays = [a == b for tasks in played.values() for a, b in itertools.pairwise(tasks)]
    assert len(stays) > 100
    assert np.mean(stays) > 0.5


def test_slots_are_dealt_out_over_the_runners() -> None:
    config = tiny_config(unequal_tasks(), envs_per_task=2)
    assert [runner.num_envs for runner in make_runners(config, 4)] == [2, 2, 1, 1]
    assert [runner.num_envs for runner in make_runners(config, 0)] == [6]


def test_an_episode_stays_with_the_task_of_its_observations() -> None:
    config = tiny_config(unequal_tasks())
    tasks = config.get_task_set()
    (runner,) = make_runners(config, 0)
    task_of_episode: dict[str, int] = {}
    for _ in range(10):
        for chunk in runner.sample(num_timesteps=60, random_actions=True):
            observations = chunk.get_observations()
            task = chunk.custom_data[TASK_ID]
            assert (observations["task_id"] == task).all()
            np.testing.assert_array_equal(
                observations["action_mask"],
                np.broadcast_to(tasks.action_mask[task], observations["action_mask"].shape),
            )
            own = observations["obs"][:, : tasks.obs_dims[task]]
            steps = np.arange(chunk.t_started, chunk.t + 1)
            np.testing.assert_array_equal(own, np.tile(steps[:, None], own.shape[1]))
            assert task_of_episode.setdefault(chunk.id_, task) == task
            if chunk.is_done:
                assert chunk.t == LENGTHS[task]
                assert chunk.is_terminated == (task != 1)
    assert set(task_of_episode.values()) == {0, 1, 2}


@pytest.mark.parametrize("runners", [0, 1, 2, 4, 8])
def test_evaluation_plays_every_task_equally_often(runners: int) -> None:
    config = tiny_config(unequal_tasks()).evaluation(evaluation_duration=2)
    config.in_evaluation = True
    for _ in range(2):
        played: list[PlayedEpisode] = []
        for runner in make_runners(config, runners):
            played += runner.play_episodes()
        by_task = defaultdict(list)
        for episode in played:
            by_task[episode.task_id].append(episode)
        assert sorted(by_task) == [0, 1, 2]
        for task, length in enumerate(LENGTHS):
            expected = PlayedEpisode(task, length * (length + 1) / 2, length)
            assert by_task[task] == [expected, expected]


def test_breakdowns_of_the_simulation_are_told_from_other_ends() -> None:
    make = functools.partial(ScriptedEnv, physics_error_at=4)
    tasks = [TaskSpec("breaks", make, max_episode_steps=100), scripted_task(6, terminates=False)]
    config = tiny_config(tasks)
    (runner,) = make_runners(config, 0)
    ended = []
    for _ in range(10):
        for chunk in runner.sample(num_timesteps=6, random_actions=True):
            assert ended_by_physics_error(chunk) == (chunk.is_done and chunk.t == 4)
            ended += [ended_by_physics_error(chunk)] if chunk.is_done else []
    assert set(ended) == {True, False}
    config.in_evaluation = True
    (runner,) = make_runners(config.evaluation(evaluation_duration=1), 0)
    assert sorted(runner.play_episodes()) == [
        PlayedEpisode(0, 1.0 + 2.0 + 3.0, 4, physics_error=True),
        PlayedEpisode(1, 21.0, 6, physics_error=False),
    ]


def test_a_second_evaluation_starts_afresh() -> None:
    config = tiny_config(unequal_tasks()).evaluation(evaluation_duration=2)
    config.in_evaluation = True
    (runner,) = make_runners(config, 0)
    runner.sample(num_timesteps=7 * runner.num_envs, random_actions=True)
    assert sorted(runner.play_episodes()) == sorted(runner.play_episodes())


def test_slots_of_an_evaluation_build_no_environment_for_what_does_not_count() -> None:
    built: Counter[int] = Counter()

    def make_task(task: int) -> TaskSpec:
        def make() -> ScriptedEnv:
            built[task] += 1
            return ScriptedEnv()

        return TaskSpec(f"counted{task}", make, max_episode_steps=LENGTHS[task])

    config = tiny_config([make_task(task) for task in range(3)]).evaluation(evaluation_duration=2)
    config.in_evaluation = True
    (runner,) = make_runners(config, 0)
    built.clear()
    for _ in range(2):
        runner.play_episodes()
    assert built == {0: 2, 1: 2, 2: 2}


def test_evaluation_is_reproducible_and_follows_the_seed() -> None:
    def returns(seed: int) -> list[float]:
        config = tiny_config(["gym:Pendulum-v1"], max_episode_steps=15)
        config.evaluation(evaluation_duration=2).debugging(seed=seed)
        config.in_evaluation = True
        (runner,) = make_runners(config, 0)
        return [episode.episode_return for episode in runner.play_episodes()]

    first = returns(3)
    assert first[0] != first[1], "every episode has its own start"
    assert returns(3) == first
    assert returns(4) != first


def collect(config: EZMConfig, samples: int) -> tuple[MultiTaskEnvRunner, list[EpisodeChunk]]:
    (runner,) = make_runners(config, 0)
    chunks = []
    for _ in range(samples):
        chunks += [to_chunk(episode) for episode in runner.sample()]
    return runner, chunks


def test_every_transition_reaches_the_replay_buffer() -> None:
    config = tiny_config([scripted_task(7, obs_dim=3, action_dim=2)])
    config.env_runners(rollout_fragment_length=5).training(num_random_steps=12)
    runner, chunks = collect(config, samples=10)
    buffer = MultiTaskReplayBuffer(
        num_tasks=1, capacity_per_task=200, obs_dim=3, action_dim=2, unroll_steps=2, td_steps=3
    )
    for chunk in chunks:
        buffer.add(chunk)
    scripted = runner.env.unwrapped.envs[0]._current.unwrapped
    assert len(buffer) == sum(len(chunk) for chunk in chunks) == len(scripted.actions) == 50
    assert buffer.num_gaps == 0
    rewards = np.concatenate([chunk.rewards for chunk in chunks])
    np.testing.assert_array_equal(rewards, 1 + np.arange(50) % 7)
    ends = [int(chunk.observations[-1, 0]) for chunk in chunks if chunk.terminated]
    assert ends == [7] * (50 // 7)


def test_the_executed_action_is_stored_also_in_the_random_warm_up() -> None:
    config = tiny_config([scripted_task(7, obs_dim=3, action_dim=2)])
    config.env_runners(rollout_fragment_length=5).training(num_random_steps=12)
    runner, chunks = collect(config, samples=10)
    scripted = runner.env.unwrapped.envs[0]._current.unwrapped
    executed = np.concatenate([chunk.actions for chunk in chunks])
    searched = np.tanh(np.concatenate([chunk.policy_means for chunk in chunks]))
    np.testing.assert_allclose(executed, np.stack(scripted.actions), atol=1e-6)
    assert (np.abs(executed[:12] - searched[:12]) > 1e-5).all(), "warm-up acts at random"
    np.testing.assert_allclose(executed[12:], searched[12:], atol=1e-5)
    assert (np.abs(searched) < 0.9991).all()
    assert searched.std() > 0.0


@pytest.mark.parametrize("runners", [1, 2])
def test_the_warm_up_counts_the_steps_of_all_runners(runners: int) -> None:
    config = tiny_config([scripted_task(7)]).training(num_random_steps=40)
    for runner in make_runners(config, runners):
        random = 0
        for _ in range(8):
            for episode in runner.sample():
                chunk = to_chunk(episode)
                searched = np.tanh(chunk.policy_means)
                random += int((np.abs(chunk.actions - searched) > 1e-4).any(axis=1).sum())
        assert random == 40 // runners


def test_started_afresh_a_used_runner_is_like_a_new_one() -> None:
    config = tiny_config(unequal_tasks()).env_runners(explore=True)
    (used,), (new,) = make_runners(config, 0), make_runners(config, 0)
    used.sample(num_timesteps=70)
    weights = used.module.get_state()
    steps = np.array([50, 5, 50])
    collected = []
    for runner in (used, new):
        runner.reset_and_reseed(11, steps)
        runner.set_state({"rl_module": weights})
        collected.append(runner.sample(num_timesteps=90))
    assert len(collected[0]) == len(collected[1]) > 3
    for ours, theirs in zip(*collected, strict=True):
        assert ours.custom_data == theirs.custom_data
        assert ours.t_started == theirs.t_started == 0
        np.testing.assert_array_equal(ours.get_actions(), theirs.get_actions())
        np.testing.assert_array_equal(
            ours.get_observations()["obs"], theirs.get_observations()["obs"]
        )
    first = [c.custom_data[TASK_ID] for c in collected[0] if c.custom_data[EPISODE_INDEX] == 0]
    assert sorted(first) == [0, 1, 2]
    played = steps_per_task(collected[0], 3)
    assert played[1] > 2 * played[0], "the task that had fallen behind catches up"


def test_a_runner_samples_for_an_algorithm_that_has_started_it() -> None:
    (runner,) = make_runners(tiny_config(unequal_tasks()), 1)
    assert runner.collect() == Collected(1)
    runner.reset_and_reseed(3, np.zeros(3, dtype=np.int64))
    collected = runner.collect()
    assert len(collected.episodes) >= 3
    assert collected.failure is None


def test_an_environment_that_always_fails_is_told_to_the_algorithm() -> None:
    tasks = [scripted_task(5), TaskSpec("broken", functools.partial(FaultyEnv, "always"))]
    config = tiny_config(tasks, max_consecutive_env_failures=2)
    (runner,) = make_runners(config, 1)
    runner.reset_and_reseed(3, np.zeros(2, dtype=np.int64))
    collected = []
    while not (collected and collected[-1].failure):
        collected.append(runner.collect())
    failure = pickle.loads(pickle.dumps(collected[-1].failure))
    assert type(failure) is EnvironmentFailedError
    assert str(failure).startswith("broken: step() raised ValueError: no way to step")
    assert "failures in a row: 2" in str(failure)
    counts = [
        (chunk.custom_data[TASK_ID], count_env_failures(chunk))
        for part in collected[:-1]
        for chunk in part.episodes
    ]
    assert [count for task, count in counts if task == 0 and count] == []
    assert sum(count for task, count in counts if task == 1) == 1


def test_failed_starts_are_counted_once(tmp_path: Path) -> None:
    make = functools.partial(FaultyEnv, "reset raises", str(tmp_path / "flag"))
    (runner,) = make_runners(tiny_config([TaskSpec("late", make)]), 0)
    chunks = [chunk for _ in range(20) for chunk in runner.sample(num_timesteps=5)]
    assert sum(count_env_failures(chunk) for chunk in chunks) == 1


def test_runners_play_episodes_of_their_own() -> None:
    tasks = [TaskSpec(f"task {index}", FaultyEnv) for index in range(4)]
    starts: list[float] = []
    for runner in make_runners(tiny_config(tasks), 3):
        for chunk in runner.sample(num_timesteps=200, random_actions=True):
            states = chunk.get_observations()["obs"]
            starts += states[states[:, 1] == 0.0, 0].tolist()
    assert len(starts) > 30
    assert len(set(starts)) == len(starts)


def test_environments_in_processes_are_collected_as_in_the_env_runner() -> None:
    tasks = [*unequal_tasks(), TaskSpec("drawn start", FaultyEnv)]
    collected, processes = [], []
    for num_processes in (0, 2):
        config = tiny_config(tasks, envs_per_task=2, num_env_processes=num_processes)
        (runner,) = make_runners(config.env_runners(explore=True), 0)
        runner.reset_and_reseed(3, np.zeros(4, dtype=np.int64))
        chunks = []
        for _ in range(4):
            chunks += runner.sample(num_timesteps=200)
        collected.append(chunks)
        processes.append(getattr(runner.env, "process_ids", []))
        runner.stop()
    assert [len(ids) for ids in processes] == [0, 2]
    assert len(collected[0]) == len(collected[1]) > 50
    for ours, theirs in zip(*collected, strict=True):
        assert ours.custom_data == theirs.custom_data
        assert (ours.is_terminated, ours.is_truncated) == (
            theirs.is_terminated,
            theirs.is_truncated,
        )
        np.testing.assert_array_equal(ours.get_actions(), theirs.get_actions())
        np.testing.assert_array_equal(ours.get_rewards(), theirs.get_rewards())
        for name, column in ours.get_observations().items():
            np.testing.assert_array_equal(column, theirs.get_observations()[name])


def test_an_evaluation_counts_episodes_that_a_neighbor_cut_short(tmp_path: Path) -> None:
    make = functools.partial(FaultyEnv, "dies", str(tmp_path / "flag"))
    tasks = [TaskSpec("good", FaultyEnv), TaskSpec("bad", make)]
    config = tiny_config(tasks, num_env_processes=1).evaluation(evaluation_duration=1)
    config.in_evaluation = True
    (runner,) = make_runners(config, 0)
    assert [episode.env_failures for episode in runner.play_episodes()] == [1, 1]
    assert [episode.env_failures for episode in runner.play_episodes()] == [0, 0]
    runner.stop()
