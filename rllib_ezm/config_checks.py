"""Validation of an EZMConfig: every wrong value gets an error that names the fix."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import VectorizeMode

from rllib_ezm.models.world_model import WorldModelSpec
from rllib_ezm.search.gumbel import SearchSettings
from rllib_ezm.search.planner import PRECISIONS, VALUE_REDUCTIONS
from rllib_ezm.tasks.multitask import TaskSet

if TYPE_CHECKING:
    from rllib_ezm.config import EZMConfig

Fail = Callable[[str], Any]

POSITIVE_INTEGERS = (
    "unroll_steps",
    "td_steps",
    "weight_sync_interval",
    "target_period",
    "capacity_per_task",
)
NON_NEGATIVE = (
    "num_random_steps",
    "num_steps_sampled_before_learning_starts",
    "weight_decay",
    "reward_loss_coeff",
    "value_loss_coeff",
    "policy_loss_coeff",
    "temporal_consistency_coeff",
    "path_consistency_coeff",
    "value_mixing_age",
    "value_mixing_start",
)
CHOICES = {
    "value_mixing": ("variance", "age", "td", "search"),
    "policy_loss": ("best_action", "distribution"),
    "value_reduction": VALUE_REDUCTIONS,
    "train_precision": PRECISIONS,
    "inference_precision": PRECISIONS,
}
FRACTIONS = ("priority_alpha", "priority_beta", "min_importance_weight", "reanalyze_ratio")


def check_settings(config: EZMConfig, fail: Fail) -> None:
    """Call `fail(message)` for the first setting that is out of range or does not fit another."""
    _check_rllib_settings(config, fail)
    _check_ranges(config, fail)
    tasks = _check_tasks(config, fail)
    _check_batch(config, tasks, fail)
    _check_search(config, fail)
    try:
        WorldModelSpec(
            tasks.obs_dim,
            tasks.action_dim,
            tasks.num_tasks,
            **config._model_config_auto_includes["world_model"],
        )
    except (TypeError, ValueError) as error:
        fail(f"world_model(): {error}")


def _check_rllib_settings(config: EZMConfig, fail: Fail) -> None:
    if not config.enable_rl_module_and_learner or not config.enable_env_runner_and_connector_v2:
        fail("EZM needs RLlib's new API stack: do not call .api_stack(...) with False.")
    if config.is_multi_agent:
        fail("EZM is single-agent: give several tasks to .tasks([...]), not .multi_agent().")
    if getattr(config, "_use_msgpack_checkpoints", False):
        fail(
            "_use_msgpack_checkpoints=True changes Ray's own serialisation of arrays: leave it "
            "False."
        )
    if config.num_envs_per_env_runner != 1:
        fail(
            "num_envs_per_env_runner is not used: copies of each task's environment are set by "
            ".tasks(..., envs_per_task=n) and dealt out over the env runners."
        )
    if VectorizeMode(config.gym_env_vectorize_mode) is not VectorizeMode.SYNC:
        fail("EZM steps its environments in the env runner: use more env runners instead of ASYNC.")
    if config.batch_mode != "truncate_episodes" and not config.in_evaluation:
        fail('EZM stores parts of episodes: leave batch_mode at "truncate_episodes".')
    if config.num_epochs != 1 or config.minibatch_size is not None:
        fail("EZM draws a new batch per update: leave num_epochs at 1 and minibatch_size unset.")
    if config.grad_clip_by != "global_norm":
        fail('EZM clips gradients by their global norm: leave grad_clip_by at "global_norm".')
    if not isinstance(config.rollout_fragment_length, int):
        fail("rollout_fragment_length must be a number of decisions per slot, such as 10.")


def _check_ranges(config: EZMConfig, fail: Fail) -> None:
    for name in POSITIVE_INTEGERS:
        value = getattr(config, name)
        if not isinstance(value, int) or value < 1:
            fail(f"{name}={value!r} must be an integer >= 1.")
    for name in NON_NEGATIVE:
        if not getattr(config, name) >= 0:
            fail(f"{name}={getattr(config, name)!r} must be >= 0.")
    for name in FRACTIONS:
        if not 0.0 <= getattr(config, name) <= 1.0:
            fail(f"{name}={getattr(config, name)!r} must be in [0, 1].")
    for name, choices in CHOICES.items():
        if getattr(config, name) not in choices:
            fail(f"{name}={getattr(config, name)!r} is unknown; use one of {choices}.")
    if not config.replay_ratio > 0:
        fail(f"replay_ratio={config.replay_ratio!r} must be > 0 (updates per env step).")
    if not 0.0 < config.target_tau <= 1.0:
        fail(f"target_tau={config.target_tau!r} must be in (0, 1]; 1 copies the weights.")
    if not 0.0 < config.gamma < 1.0:
        fail(f"gamma={config.gamma!r} must be in (0, 1).")
    if not 0.0 < config.variance_window_decay < 1.0:
        fail(f"variance_window_decay={config.variance_window_decay!r} must be in (0, 1).")
    if config.num_bins < 2:
        fail(f"num_bins={config.num_bins!r} must be >= 2.")
    for name in ("reward_support", "value_support"):
        support = getattr(config, name)
        if len(support) != 2 or not support[0] < support[1]:
            fail(f"{name}={support!r} must be (low, high) with low < high.")
    if "float16" in (config.train_precision, config.inference_precision) and not (
        torch.cuda.is_available()
    ):
        fail('float16 autocast needs a CUDA GPU: use "bfloat16" or "float32".')
    if config.train_precision == "float16":
        fail('float16 training would need loss scaling: use train_precision="bfloat16".')


def _check_tasks(config: EZMConfig, fail: Fail) -> TaskSet:
    if not config.env_config.get("tasks"):
        fail('No tasks: call .tasks(["dmc:walker-stand", "dmc:walker-walk", ...]).')
    if config.env_config.get("termination") not in ("respect", "ignore"):
        fail(f'termination={config.env_config.get("termination")!r}: use "respect" or "ignore".')
    copies = config.env_config.get("envs_per_task")
    if not isinstance(copies, int) or copies < 1:
        fail(f"envs_per_task={copies!r} must be an integer >= 1.")
    return config.get_task_set()


def _check_batch(config: EZMConfig, tasks: TaskSet, fail: Fail) -> None:
    if config.total_train_batch_size < tasks.num_tasks:
        fail(
            f"train_batch_size_per_learner={config.train_batch_size_per_learner} cannot hold a "
            f"sample of each of the {tasks.num_tasks} tasks: use at least {tasks.num_tasks}."
        )
    segment = config.unroll_steps + config.td_steps + 1
    if config.capacity_per_task < segment:
        fail(
            f"capacity_per_task={config.capacity_per_task} cannot hold one segment of "
            f"unroll_steps + td_steps + 1 = {segment} states: raise it."
        )
    if config.policy_loss == "distribution" and config.reanalyze_ratio < 1.0:
        fail(
            'policy_loss="distribution" needs the candidates of a fresh search for every sample: '
            'use reanalyze_ratio=1, or policy_loss="best_action".'
        )


def _check_search(config: EZMConfig, fail: Fail) -> None:
    options = config._model_config_auto_includes
    try:
        SearchSettings(**options["search"])
        if options["evaluation_search"]["num_simulations"] != 0:
            SearchSettings(**options["evaluation_search"])
    except (TypeError, ValueError) as error:
        fail(f"search(): {error}")
