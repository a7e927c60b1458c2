"""`--smoke`: an experiment scaled down to a minute or so, with every part of it still in place."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

from ray.rllib.algorithms import AlgorithmConfig

from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.tasks.multitask import resolve_tasks
from rllib_ezm.utils.errors import UserError

SMOKE_STOP = {"num_updates_lifetime": 10}
"""Where a smoke run ends."""

EPISODE_DECISIONS = 50
STEPS_BEFORE_LEARNING = 20  # per task
SAMPLES_PER_TASK = 2

LARGEST = {
    "latent_dim": 32,
    "embedding_dim": 16,
    "action_embedding_dim": 16,
    "head_dim": 32,
    "projection_dim": 32,
    "num_simulations": 8,
    "num_candidates": 8,
    "num_simulations_at_eval": 8,
    "capacity_per_task": 2000,
    "evaluation_interval": 1,
    "evaluation_duration": 1,
    "min_sample_timesteps_per_iteration": 1,
}
"""Settings that a smoke run limits. Depth, heads, bins, unroll, losses and ratios stay."""


def scale_down(config: AlgorithmConfig) -> EZMConfig:
    """Return a copy of a config with a tiny network, search, batch and replay, short episodes.

    The tasks, their padding and everything else that decides what the code does stay as they are.

    Raises:
        UserError: If it is not an EZMConfig.
    """
    if not isinstance(config, EZMConfig):
        raise UserError(
            f"--smoke scales EZMConfig down, not {type(config).__name__}: give --stop instead"
        )
    small: EZMConfig = config.copy(copy_frozen=False)
    share = small.policy_candidates / small.num_candidates
    for name, largest in LARGEST.items():
        setattr(small, name, _limited(getattr(small, name), largest))
    small.warm_start(None)  # its networks have other sizes
    small.search(policy_candidates=round(share * small.num_candidates))
    tasks = resolve_tasks(small.env_config["tasks"])
    wait = STEPS_BEFORE_LEARNING * len(tasks)
    for name in ("num_steps_sampled_before_learning_starts", "num_random_steps"):
        setattr(small, name, _limited(getattr(small, name), wait))
    batch = _limited(small.train_batch_size_per_learner, SAMPLES_PER_TASK * len(tasks))
    small.training(train_batch_size_per_learner=batch)
    small.env_config = {
        **small.env_config,
        "envs_per_task": 1,
        "tasks": [
            dataclasses.replace(
                task,
                max_episode_steps=_limited(
                    task.max_episode_steps, EPISODE_DECISIONS * task.action_repeat
                ),
            )
            for task in tasks
        ],
    }
    return small


def _limited(value: Any, largest: int) -> Any:
    """Returns at most `largest`; what is not a number (None, a Tune grid) stays as it is."""
    return min(value, largest) if isinstance(value, numbers.Real) else value
