"""Which replay buffer a config asks for."""

from __future__ import annotations

import functools
from typing import Any

import torch

from rllib_ezm.execution.device_columns import DeviceColumns
from rllib_ezm.execution.replay_actors import ReplayActors
from rllib_ezm.replay import MultiTaskReplayBuffer, ReplayBuffer


def make_replay_buffer(config: Any, device: torch.device | None = None) -> ReplayBuffer:
    """The empty buffer of an `EZMConfig`, in this process or in actors.

    Args:
        config: The config.
        device: The learner's, for `replay_device="learner"`.

    Raises:
        UserError: It does not fit on the device.
    """
    tasks = config.get_task_set()
    settings: dict[str, Any] = {
        "num_tasks": tasks.num_tasks,
        "capacity_per_task": config.capacity_per_task,
        "obs_dim": tasks.obs_dim,
        "action_dim": tasks.action_dim,
        "unroll_steps": config.unroll_steps,
        "td_steps": config.td_steps,
        "priority_alpha": config.priority_alpha,
        "priority_beta": config.priority_beta,
        "priority_epsilon": config.priority_epsilon,
        "min_weight": config.min_importance_weight,
        "max_bytes": config.max_replay_bytes,
        "seed": config.seed,
        "dtype": config.replay_dtype,
    }
    if config.num_replay_actors:
        return ReplayActors(
            config.num_replay_actors, num_cpus=config.num_cpus_per_replay_actor, **settings
        )
    if config.replay_device == "learner":
        settings["make_columns"] = functools.partial(DeviceColumns, device=device or "cpu")
    return MultiTaskReplayBuffer(independent=config.independent_replay, **settings)
