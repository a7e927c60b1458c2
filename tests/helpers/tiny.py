"""Tiny EZM settings, scripted tasks and episodes for the tests of the RLlib classes."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import numpy as np
from helpers.scripted_env import ScriptedEnv
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule

from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.replay import EpisodeChunk, MultiTaskReplayBuffer
from rllib_ezm.tasks.multitask import TaskSet
from rllib_ezm.tasks.spec import TaskSpec


def scripted_task(
    length: int, obs_dim: int = 2, action_dim: int = 1, *, terminates: bool = True
) -> TaskSpec:
    """Episodes of `length` decisions with rewards 1, 2, ..., length."""
    end = {"terminate_at": length} if terminates else {"truncate_at": length}
    make = functools.partial(
        ScriptedEnv,
        obs_shape=(obs_dim,),
        low=(-1.0,) * action_dim,
        high=(1.0,) * action_dim,
        **end,
    )
    return TaskSpec(name=f"scripted-{length}", make=make, max_episode_steps=10 * length)


def tiny_config(tasks: list[Any], **task_options: Any) -> EZMConfig:
    """A model of a few thousand parameters, S=4, N=4, small batches, a fixed seed."""
    return (
        EZMConfig()
        .tasks(tasks, **task_options)
        .training(
            train_batch_size_per_learner=8,
            unroll_steps=2,
            td_steps=3,
            num_random_steps=0,
            num_steps_sampled_before_learning_starts=40,
        )
        .world_model(
            latent_dim=32,
            embedding_dim=8,
            action_embedding_dim=8,
            num_blocks=1,
            num_value_heads=2,
            head_dim=32,
            projection_dim=32,
        )
        .search(num_simulations=4, num_candidates=4, policy_candidates=2)
        .replay(capacity_per_task=2000)
        .debugging(seed=1)
    )


def spaces(tasks: TaskSet) -> dict[str, tuple[gym.Space[Any], gym.Space[Any]]]:
    """What RLlib builds the module from."""
    return {DEFAULT_MODULE_ID: (tasks.observation_space, tasks.action_space)}


def build_module(config: EZMConfig, *, inference_only: bool = False) -> RLModule:
    """The module as an env runner or a learner gets it."""
    spec = config.get_rl_module_spec(
        spaces=spaces(config.get_task_set()), inference_only=inference_only
    )
    return spec.build()


def fill_replay(
    config: EZMConfig, *, length: int, episodes: int, seed: int = 0, high: float = 1.0
) -> MultiTaskReplayBuffer:
    """A buffer of terminated episodes per task with random states and rewards in [0, high]."""
    tasks = config.get_task_set()
    buffer = MultiTaskReplayBuffer(
        num_tasks=tasks.num_tasks,
        capacity_per_task=config.capacity_per_task,
        obs_dim=tasks.obs_dim,
        action_dim=tasks.action_dim,
        unroll_steps=config.unroll_steps,
        td_steps=config.td_steps,
        seed=seed,
    )
    rng = np.random.default_rng(seed)
    for task_id in range(tasks.num_tasks):
        action_mask = tasks.action_mask[task_id]
        for episode in range(episodes):
            shape = (length, tasks.action_dim)
            chunk = EpisodeChunk(
                task_id=task_id,
                episode_id=f"{episode}",
                start=0,
                observations=rng.normal(size=(length + 1, tasks.obs_dim)) * tasks.obs_mask[task_id],
                actions=rng.uniform(-0.9, 0.9, size=shape) * action_mask,
                rewards=rng.uniform(0.0, high, size=length),
                terminated=True,
                truncated=False,
                search_values=rng.normal(size=length),
                policy_means=np.arctanh(rng.uniform(-0.9, 0.9, size=shape)) * action_mask,
                policy_stds=np.full(shape, 0.25) * action_mask,
            )
            buffer.add(chunk)
    return buffer
