"""How RLlib's episodes enter the replay buffer, and how its batches reach the learners."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_ezm.algorithm.env_runner import TASK_ID
from rllib_ezm.algorithm.rl_module import POLICY_MEAN, POLICY_STD, SEARCH_VALUE
from rllib_ezm.replay import EpisodeChunk


def shard_for_learners(batch: dict[str, Any], num_learners: int) -> dict[str, Any]:
    """Reorders the rows [B, ...] so that each learner's consecutive B / num_learners are balanced.

    A batch comes in task order, and RLlib splits it into consecutive parts. Taking every
    `num_learners`-th row gives each learner an equal share of each task, plus or minus one row.
    """
    if num_learners == 1:
        return batch
    rows = len(batch["task_ids"])
    order = np.concatenate([np.arange(first, rows, num_learners) for first in range(num_learners)])
    return {name: column[order] for name, column in batch.items()}


def to_chunk(
    episode: SingleAgentEpisode, num_steps: int | None = None, *, searched_at: int = 0
) -> EpisodeChunk:
    """A replay chunk of an RLlib episode chunk (numpy'ed, executed actions).

    Args:
        episode: The chunk.
        num_steps: Only so many of its steps, from the first on; None for all.
        searched_at: Updates made before its actions were searched.
    """
    steps = len(episode) if num_steps is None else num_steps
    return EpisodeChunk(
        task_id=episode.custom_data[TASK_ID],
        episode_id=episode.id_,
        start=episode.t_started,
        observations=episode.get_observations()["obs"][: steps + 1],
        actions=episode.get_actions()[:steps],
        rewards=episode.get_rewards()[:steps],
        terminated=episode.is_terminated,
        truncated=episode.is_truncated,
        search_values=episode.get_extra_model_outputs(SEARCH_VALUE)[:steps],
        policy_means=episode.get_extra_model_outputs(POLICY_MEAN)[:steps],
        policy_stds=episode.get_extra_model_outputs(POLICY_STD)[:steps],
        searched_at=searched_at,
    )
