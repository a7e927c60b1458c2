"""Made-up episodes whose observations name their own task, episode and step."""

from __future__ import annotations

import numpy as np

from rllib_ezm.replay import EpisodeChunk, MultiTaskReplayBuffer

OBS_DIM, ACTION_DIM = 5, 3


def make_episode(
    task: int, number: int, length: int, *, terminated: bool = False, truncated: bool = False
) -> EpisodeChunk:
    """An episode with observations (task, number, step, noise, noise) and distinct numbers."""
    rng = np.random.default_rng([task, number, length])
    obs = rng.normal(size=(length + 1, OBS_DIM))
    obs[:, 0], obs[:, 1], obs[:, 2] = task, number, np.arange(length + 1)
    return EpisodeChunk(
        task_id=task,
        episode_id=f"e{number}",
        start=0,
        observations=obs.astype(np.float32),
        actions=rng.uniform(-1, 1, (length, ACTION_DIM)).astype(np.float32),
        rewards=rng.normal(size=length).astype(np.float32),
        terminated=terminated,
        truncated=truncated,
        search_values=rng.normal(size=length).astype(np.float32),
        policy_means=rng.normal(size=(length, ACTION_DIM)).astype(np.float32),
        policy_stds=rng.uniform(0, 1, (length, ACTION_DIM)).astype(np.float32),
        searched_at=number,
    )


def cut(episode: EpisodeChunk, begin: int, end: int) -> EpisodeChunk:
    """Transitions `begin..end` of an episode as a chunk; only the last one carries the flags."""
    last = end == len(episode)
    return EpisodeChunk(
        task_id=episode.task_id,
        episode_id=episode.episode_id,
        start=episode.start + begin,
        observations=episode.observations[begin : end + 1],
        actions=episode.actions[begin:end],
        rewards=episode.rewards[begin:end],
        terminated=episode.terminated and last,
        truncated=episode.truncated and last,
        search_values=episode.search_values[begin:end],
        policy_means=episode.policy_means[begin:end],
        policy_stds=episode.policy_stds[begin:end],
        searched_at=episode.searched_at,
    )


def make_buffer(num_tasks: int, capacity: int, **settings: object) -> MultiTaskReplayBuffer:
    """A buffer for the episodes above; K=2, n=3 unless told otherwise."""
    arguments: dict = {"unroll_steps": 2, "td_steps": 3, "seed": 0, **settings}
    return MultiTaskReplayBuffer(
        num_tasks=num_tasks,
        capacity_per_task=capacity,
        obs_dim=OBS_DIM,
        action_dim=ACTION_DIM,
        **arguments,
    )


def sampled_starts(batch: dict[str, np.ndarray]) -> list[tuple[int, int, int]]:
    """(task, episode number, step) of every segment, read from its first observation."""
    return [tuple(int(x) for x in row) for row in batch["obs"][:, 0, :3]]
