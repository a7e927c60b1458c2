"""Tasks "gym:<id>": any registered Gymnasium environment with Box observations and actions.

Box observations of any shape are flattened to one dimension by `padding.PadTask`. Discrete
actions are out of scope.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym

from rllib_ezm.tasks.spec import TaskSpec, register_prefix


def make_gymnasium_env(env_id: str, **env_kwargs: Any) -> gym.Env[Any, Any]:
    """Returns `gym.make(env_id)` without its TimeLimit, which `TaskSpec.build` applies instead."""
    return gym.make(env_id, max_episode_steps=-1, **env_kwargs)


def _resolve(env_id: str, env_kwargs: dict[str, Any] | None = None) -> TaskSpec | None:
    """Returns the spec of a registered id. Scores 0 and 1: the normalized score is the return.

    Raises:
        ValueError: If `env_kwargs` holds a time limit.
    """
    if "max_episode_steps" in (env_kwargs or {}):
        raise ValueError(
            f'Task "gym:{env_id}": max_episode_steps is an option of the task, not one of its '
            'env_kwargs: {"name": ..., "max_episode_steps": ..., "env_kwargs": {...}}.'
        )
    try:
        registered = gym.spec(env_id)
    except gym.error.Error:  # unknown, of another version, or without a version
        return None
    return TaskSpec(
        name=f"gym:{env_id}",
        make=functools.partial(make_gymnasium_env, env_id, **(env_kwargs or {})),
        max_episode_steps=registered.max_episode_steps,
    )


def _names() -> list[str]:
    """Returns the names of all registered ids."""
    return [f"gym:{env_id}" for env_id in gym.registry]


register_prefix("gym", _resolve, _names, options=("env_kwargs",))
