"""RLlib's own algorithms on EZ-M's tasks: the same padding, env runner and evaluation.

    config = on_tasks(SACConfig(), ["dmc:walker-stand", "dmc:walker-walk"], action_repeat=2)

The task id is part of the observation. Legend: T tasks, M rows, A padded action dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import gymnasium as gym
import torch
from ray.rllib.algorithms import AlgorithmConfig
from ray.rllib.algorithms.dreamerv3 import DreamerV3
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.rllib.utils.annotations import override
from torch import nn

from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.algorithm.env_runner import ENV_NAME, MultiTaskEnvRunner
from rllib_ezm.algorithm.evaluation import evaluate_per_task
from rllib_ezm.tasks import TaskSpec
from rllib_ezm.utils.ray_internals import model_config_of

Config = TypeVar("Config", bound=AlgorithmConfig)


def on_tasks(config: Config, tasks: Sequence[str | TaskSpec], **options: Any) -> Config:
    """Let an algorithm of RLlib train on several tasks at once; changes and returns its config.

    It collects with one env runner, of `envs_per_task` slots for each task. RLlib computes its
    ratios (`training_intensity`, rollouts) from `num_envs_per_env_runner`, which is set to their
    number: with N env runners, set it to an N-th.

    It builds an environment of each task to read its sizes, which the config then carries to all
    processes. Its observation is one flat vector: action mask (A), padded observation, one-hot task
    id (T). Training and evaluation explore and play as EZM's do, and `rllib-ezm report` reads the
    results.

    Args:
        config: Of an algorithm for Box observations and actions (PPO, SAC, TQC, DreamerV3, ...).
        tasks: As in `EZMConfig.tasks`.
        **options: As in `EZMConfig.tasks`, e.g. `envs_per_task=2, action_repeat=2`.

    Raises:
        ValueError: If a task is unknown or an option does not exist.
    """
    chosen = EZMConfig().tasks(tasks, **options)
    chosen.get_task_set()
    env_config = chosen.env_config
    config.environment(ENV_NAME, env_config=env_config)
    config.env_runners(
        num_envs_per_env_runner=len(env_config["tasks"]) * env_config["envs_per_task"],
        env_runner_cls=MultiTaskEnvRunner,
        num_env_runners=0,
        env_to_module_connector=_flatten_observations,
    )
    config.evaluation(
        evaluation_config=AlgorithmConfig.overrides(explore=False),
        custom_evaluation_function=evaluate_per_task,
        evaluation_sample_timeout_s=chosen.evaluation_sample_timeout_s,
    )
    return config


def multi_head(config: SACConfig) -> SACConfig:
    """Give SAC a policy head and Q heads per task on shared trunks; changes and returns the config.

    This is multi-head SAC (MH-SAC) of the multi-task literature, which the paper compares with.

    Args:
        config: Of SAC, after `on_tasks`.
    """
    num_tasks = len(config.env_config["tasks"])
    return config.rl_module(
        rl_module_spec=RLModuleSpec(catalog_class=MultiHeadSACCatalog),
        model_config={**config.model_config, "num_tasks": num_tasks},
    )


class MultiTaskDreamerV3(DreamerV3):
    """DreamerV3 after `on_tasks`: `on_tasks(DreamerV3Config(algo_class=MultiTaskDreamerV3), ...)`.

    In Ray 2.60 its training step wants the shape of the environment's own observation, a Dict here.
    """

    @override(DreamerV3)
    def setup(self, config: AlgorithmConfig) -> None:
        """Builds the algorithm; its training step then sees the flat observation space."""
        super().setup(config)
        observation, action = self.spaces[INPUT_ENV_SINGLE_SPACES]
        self.spaces[INPUT_ENV_SINGLE_SPACES] = (gym.spaces.flatten_space(observation), action)


def _flatten_observations(env: Any, spaces: Any, device: Any) -> FlattenObservations:
    return FlattenObservations()


class MultiHeadSACCatalog(SACCatalog):
    """SAC's networks with `model_config["num_tasks"]` heads each; the one-hot task id chooses."""

    @override(SACCatalog)
    def build_encoder(self, framework: str) -> nn.Module:
        """Encoder of the policy, its output followed by the one-hot task id."""
        return WithTaskId(super().build_encoder(framework), self._num_tasks)

    @override(SACCatalog)
    def build_qf_encoder(self, framework: str) -> nn.Module:
        """Encoder of a Q function, its output followed by the one-hot task id."""
        return WithTaskId(super().build_qf_encoder(framework), self._num_tasks)

    @override(SACCatalog)
    def build_pi_head(self, framework: str) -> nn.Module:
        """Heads of the policy."""
        return self._heads(super().build_pi_head, framework)

    @override(SACCatalog)
    def build_qf_head(self, framework: str) -> nn.Module:
        """Heads of a Q function."""
        return self._heads(super().build_qf_head, framework)

    @property
    def _num_tasks(self) -> int:
        return int(model_config_of(self)["num_tasks"])

    def _heads(self, build: Any, framework: str) -> nn.Module:
        return HeadPerTask(build(framework) for _ in range(self._num_tasks))


class WithTaskId(nn.Module):
    """An encoder whose output [M, H] is followed by the task id, the last T observations."""

    def __init__(self, encoder: nn.Module, num_tasks: int) -> None:
        super().__init__()
        self.encoder, self.num_tasks = encoder, num_tasks

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Returns [M, H + T] under RLlib's key of an encoder's output."""
        task = batch[Columns.OBS][..., -self.num_tasks :]
        return {ENCODER_OUT: torch.cat([self.encoder(batch)[ENCODER_OUT], task], dim=-1)}


class HeadPerTask(nn.ModuleList):
    """Of T heads, each row [H + T] gets the output of the one that its one-hot task id chooses."""

    def forward(self, latent_and_task: torch.Tensor) -> torch.Tensor:
        """Returns [M, O] of latents with task ids [M, H + T]."""
        latent, task = latent_and_task.tensor_split([-len(self)], dim=-1)
        outputs = torch.stack([head(latent) for head in self], dim=-1)
        return (outputs * task.unsqueeze(-2)).sum(-1)
