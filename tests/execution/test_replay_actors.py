"""Replay rings in actors, on a real Ray."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from helpers.replay_episodes import (
    ACTION_DIM,
    OBS_DIM,
    cut,
    make_buffer,
    make_episode,
    sampled_starts,
)
from helpers.run_record import go_on
from helpers.tiny import scripted_task, tiny_config

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.execution.replay_actors import ReplayActors
from rllib_ezm.execution.replay_factory import make_replay_buffer
from rllib_ezm.replay import MultiTaskReplayBuffer
from rllib_ezm.replay.storage import load_state, save_state
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.seeding import derived_seed

pytestmark = pytest.mark.usefixtures("ray_cluster")

TASKS = 5
OWNERS = (0, 0, 0, 1, 1)
Maker = Callable[..., ReplayActors]


@pytest.fixture
def make_actors(ray_cluster: None) -> Iterator[Maker]:
    """Makes buffers in actors, with the sizes of `make_buffer`, and ends them."""
    made: list[ReplayActors] = []

    def make(num_actors: int = 2, seed: int = 0, max_bytes: int | None = None) -> ReplayActors:
        made.append(
            ReplayActors(
                num_actors,
                num_cpus=0.1,
                num_tasks=TASKS,
                seed=seed,
                max_bytes=max_bytes,
                capacity_per_task=40,
                obs_dim=OBS_DIM,
                action_dim=ACTION_DIM,
                unroll_steps=2,
                td_steps=3,
            )
        )
        return made[-1]

    yield make
    for buffer in made:
        buffer.close()


def fill(buffer: ReplayActors | MultiTaskReplayBuffer, tasks: range = range(TASKS)) -> None:
    """One task past wrap-around, one without data, one with an open episode."""
    for task in (0, 2, 3, 4):
        if task in tasks:
            for number in range(7 if task == 0 else 2):
                buffer.add(make_episode(task, number, 9, terminated=True))
    if 4 in tasks:
        buffer.add(cut(make_episode(4, 50, 30, truncated=True), 0, 12))


def counts(buffer: ReplayActors | MultiTaskReplayBuffer) -> list[tuple[int, int]]:
    return [(buffer.num_transitions(task), buffer.num_added(task)) for task in range(TASKS)]


def test_they_hold_what_a_local_buffer_holds(make_actors: Maker) -> None:
    actors, local = make_actors(), make_buffer(TASKS, 40)
    for buffer in (actors, local):
        fill(buffer)
    assert counts(actors) == counts(local)
    assert len(actors) == len(local) > 0
    assert actors.num_gaps == local.num_gaps == 0
    assert actors.ready_tasks == local.ready_tasks == [0, 2, 3, 4]
    assert actors.nbytes == local.nbytes
    ours, theirs = actors.get_state()["rings"], local.get_state()["rings"]
    assert set(ours) == set(theirs)
    for ring, state in theirs.items():
        for name, column in state["columns"].items():
            np.testing.assert_array_equal(ours[ring]["columns"][name], column)


def test_each_actor_draws_as_a_local_buffer_of_its_tasks(make_actors: Maker) -> None:
    """Also after new priorities: rows in task order, weights within each task's share."""
    actors = make_actors(seed=7)
    alone = [make_buffer(TASKS, 40, seed=derived_seed(7, number)) for number in range(2)]
    fill(actors)
    fill(alone[0], range(3))
    fill(alone[1], range(3, TASKS))
    for _ in range(3):
        batch = actors.sample(40)
        assert (np.diff(batch["task_ids"]) >= 0).all()
        parts = [buffer.sample(20) for buffer in alone]
        for name, column in batch.items():
            np.testing.assert_array_equal(column, np.concatenate([p[name] for p in parts]))
        priorities = batch["obs"][:, 0, 3] ** 2
        actors.update_priorities(batch["task_ids"], batch["index"], priorities)
        for buffer, part in zip(alone, parts, strict=True):
            buffer.update_priorities(part["task_ids"], part["index"], part["obs"][:, 0, 3] ** 2)


def test_every_task_gets_its_share_whatever_the_batch_size(make_actors: Maker) -> None:
    actors = make_actors()
    fill(actors)
    drawn: Counter[int] = Counter()
    for _ in range(24):
        batch = actors.sample(7)
        assert len(batch["task_ids"]) == 7
        drawn.update(batch["task_ids"].tolist())
    assert sum(drawn.values()) == 7 * 24
    assert set(drawn) == {0, 2, 3, 4}
    assert max(drawn.values()) - min(drawn.values()) <= 2


def test_a_peek_changes_nothing(make_actors: Maker) -> None:
    one, two = make_actors(seed=3), make_actors(seed=3)
    for buffer in (one, two):
        fill(buffer)
    peeked = [sampled_starts(one.peek(9, np.random.default_rng(5))) for _ in range(2)]
    assert peeked[0] == peeked[1]
    assert sampled_starts(one.sample(9)) == sampled_starts(two.sample(9))


@pytest.mark.parametrize("through_disk", [False, True])
def test_a_restored_buffer_goes_on_exactly(
    make_actors: Maker, tmp_path: Path, *, through_disk: bool
) -> None:
    saved, restored = make_actors(), make_actors(seed=99)
    fill(saved)
    saved.sample(13)
    restored.add(make_episode(1, 3, 20))
    state = saved.get_state()
    if through_disk:
        save_state(state, tmp_path / "replay")
        state = load_state(tmp_path / "replay")
    restored.set_state(state)
    assert restored.ready_tasks == [0, 2, 3, 4]
    for buffer in (saved, restored):
        buffer.add(cut(make_episode(4, 50, 30, truncated=True), 12, 30))
    assert counts(saved) == counts(restored)
    for _ in range(2):
        ours, theirs = saved.sample(13), restored.sample(13)
        for name, column in ours.items():
            np.testing.assert_array_equal(column, theirs[name])


def test_local_buffers_and_other_numbers_of_actors_take_a_state_over(make_actors: Maker) -> None:
    saved = make_actors(2)
    fill(saved)
    local, three = make_buffer(TASKS, 40, seed=5), make_actors(3)
    local.set_state(saved.get_state())
    three.set_state(local.get_state())
    assert counts(saved) == counts(local) == counts(three)
    assert set(sampled_starts(three.sample(40))) <= set(sampled_starts(local.sample(4000)))
    other = make_buffer(TASKS, 50)
    with pytest.raises(ValueError, match="build it with the sizes"):
        saved.set_state(other.get_state())


def test_errors_reach_the_caller(make_actors: Maker) -> None:
    with pytest.raises(ValueError, match="more than max_bytes=10"):
        make_actors(max_bytes=10)
    actors = make_actors()
    with pytest.raises(ValueError, match="no transitions yet"):
        actors.sample(4)
    with pytest.raises(ValueError, match="batch_size must be"):
        actors.sample(0)
    with pytest.raises(ValueError, match=r"task_id must be in \[0, 5\)"):
        actors.add(make_episode(TASKS, 0, 4))
    fill(actors)
    batch = actors.sample(4)
    actors.update_priorities(batch["task_ids"], batch["index"], np.full(4, np.nan))
    with pytest.raises(ValueError, match="has the value loss diverged"):
        actors.sample(4)
    actors.sample(4)


def wait_until_dead(actor: Any) -> None:
    """Killing takes a moment on a busy machine."""
    while True:
        try:
            ray.get(actor.counts.remote())
        except ray.exceptions.RayActorError:
            return


def test_a_dead_actor_is_an_error_that_says_what_to_do(make_actors: Maker) -> None:
    actors = make_actors()
    fill(actors)
    dead = actors._actors[1]
    ray.kill(dead)
    wait_until_dead(dead)
    with pytest.raises(UserError, match=r"died.*resume from the last checkpoint"):
        actors.sample(8)


def config_with_actors() -> EZMConfig:
    tasks = [
        {"name": "gym:Pendulum-v1", "max_episode_steps": 20},
        {"name": "dmc:cartpole-balance", "max_episode_steps": 33},
    ]
    return (
        tiny_config(tasks)
        .training(replay_ratio=0.3)
        .replay(capacity_per_task=150, num_replay_actors=2)
        .reporting(min_sample_timesteps_per_iteration=100)
    )


def test_training_and_resuming_with_replay_actors(ray_cluster: None, tmp_path: Path) -> None:
    algorithm = config_with_actors().build_algo()
    for _ in range(2):
        result = algorithm.train()
    assert isinstance(algorithm.replay_buffer, ReplayActors)
    assert result["num_updates_lifetime"] > 0
    steps = algorithm.task_statistics.env_steps.tolist()
    assert [algorithm.replay_buffer.num_added(task) for task in range(2)] == steps
    algorithm.save_to_path(tmp_path / "checkpoint")
    ours = go_on(algorithm, 2)
    algorithm.stop()
    resumed = EZM.from_checkpoint(tmp_path / "checkpoint")
    theirs = go_on(resumed, 2)
    pids = ray.get(
        [
            actor.__ray_call__.remote(lambda _: os.getpid())
            for actor in resumed.replay_buffer._actors
        ]
    )
    assert len({os.getpid(), *pids}) == 3
    resumed.stop()
    assert set(ours) == set(theirs)
    assert any("replay/rings" in name for name in ours)
    assert [name for name, x in ours.items() if x.tobytes() != theirs[name].tobytes()] == []
    # What they held is gone with the algorithm: no process is left behind.
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(resumed.replay_buffer._actors[0].counts.remote())


def test_tune_is_asked_for_their_cpus() -> None:
    config = config_with_actors().replay(num_cpus_per_replay_actor=2)
    request = EZM.default_resource_request(config)
    assert sum(bundle.get("CPU", 0) == 2 for bundle in request.bundles) == 2


def test_one_ring_for_all_tasks_cannot_be_shared_out() -> None:
    config = config_with_actors().replay(independent_replay=False)
    with pytest.raises(ValueError, match="num_replay_actors=0"):
        config.validate()


@pytest.mark.parametrize("num_replay_actors", [0, 1])
def test_the_floor_of_the_priorities_is_the_configs(num_replay_actors: int) -> None:
    config = tiny_config([scripted_task(9)]).replay(
        priority_epsilon=0.25, num_replay_actors=num_replay_actors, num_cpus_per_replay_actor=0.1
    )
    tasks = config.get_task_set()
    buffer = make_replay_buffer(config)
    try:
        episode = make_episode(0, 0, 9, terminated=True)
        width = (tasks.obs_dim, tasks.action_dim)
        buffer.add(
            replace(
                episode,
                observations=episode.observations[:, : width[0]],
                actions=episode.actions[:, : width[1]],
                policy_means=episode.policy_means[:, : width[1]],
                policy_stds=episode.policy_stds[:, : width[1]],
            )
        )
        batch = buffer.sample(8)
        buffer.update_priorities(batch["task_ids"], batch["index"], np.zeros(8))
        priorities = buffer.get_state()["rings"]["0"]["columns"]["priorities"]
        assert set(priorities[batch["index"][:, 0]]) == {0.25}
    finally:
        buffer.close()
