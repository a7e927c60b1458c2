"""Validation of an EZMConfig: every wrong value gets an error that names the fix."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import VectorizeMode

from rllib_ezm.models.precision import PRECISIONS
from rllib_ezm.models.world_model import EMBEDDING_SITES, WorldModelSpec
from rllib_ezm.search.planner import VALUE_REDUCTIONS
from rllib_ezm.search.registry import planner_class
from rllib_ezm.search.settings import SearchSettings
from rllib_ezm.tasks.multitask import TaskSet

if TYPE_CHECKING:
    from rllib_ezm.algorithm.config import EZMConfig

Fail = Callable[[str], Any]

INTEGERS_FROM = {
    "unroll_steps": 1,
    "td_steps": 1,
    "weight_sync_interval": 1,
    "target_period": 1,
    "max_consecutive_nonfinite_updates": 1,
    "capacity_per_task": 1,
    "train_batch_size_per_learner": 1,
    "rollout_fragment_length": 1,
    "metrics_num_episodes_for_smoothing": 1,
    "evaluation_duration": 1,
    "num_random_steps": 0,
    "num_steps_sampled_before_learning_starts": 0,
    "value_mixing_age": 0,
    "value_mixing_start": 0,
    "latent_dim": 1,
    "embedding_dim": 1,
    "action_embedding_dim": 1,
    "num_blocks": 1,
    "num_value_heads": 1,
    "head_dim": 1,
    "projection_dim": 1,
    "num_bins": 2,
    "num_simulations": 1,
    "num_simulations_at_eval": 0,
    "num_candidates": 1,
    "policy_candidates": 0,
    "max_replay_bytes": 1,
    "num_reanalyze_workers": 0,
    "num_replay_actors": 0,
    "max_queued_batches": 1,
    "max_updates_behind": 0,
    "max_weight_age": 1,
}
"""Settings that are integers, and their smallest value."""

OPTIONAL = ("num_simulations_at_eval", "max_replay_bytes", "value_clip_min", "grad_clip")
"""Settings that may be None."""

NON_NEGATIVE = (
    "weight_decay",
    "reward_loss_coeff",
    "value_loss_coeff",
    "policy_loss_coeff",
    "temporal_consistency_coeff",
    "path_consistency_coeff",
    "num_cpus_per_reanalyze_worker",
    "num_gpus_per_reanalyze_worker",
    "num_cpus_per_replay_actor",
)
POSITIVE = ("replay_ratio", "wide_std_factor", "minmax_delta", "grad_clip")
FINITE = ("entropy_coeff", "value_clip_min", "log_std_min", "log_std_max")
BOOLEANS = (
    "use_gumbel_noise",
    "squashed_entropy",
    "replayed_candidate",
    "wide_candidates_at_eval",
    "independent_replay",
    "store_buffer_in_checkpoints",
    "asynchronous",
)
CHOICES = {
    "value_mixing": ("variance", "age", "td", "search"),
    "policy_loss": ("best_action", "distribution"),
    "value_reduction": VALUE_REDUCTIONS,
    "train_precision": PRECISIONS,
    "inference_precision": PRECISIONS,
    "weight_transfer_dtype": ("float32", "bfloat16"),
}
FRACTIONS = (
    "priority_alpha",
    "priority_beta",
    "min_importance_weight",
    "reanalyze_ratio",
    "cross_task_probability",
)


def check_settings(config: EZMConfig, fail: Fail) -> None:
    """Call `fail(message)` for the first setting that is out of range or does not fit another."""
    _check_rllib_settings(config, fail)
    _check_ranges(config, fail)
    tasks = _check_tasks(config, fail)
    _check_batch(config, tasks, fail)
    _check_search(config, fail)
    _check_asynchrony(config, fail)
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
            ".tasks(..., envs_per_task=n) and distributed over the env runners."
        )
    if VectorizeMode(config.gym_env_vectorize_mode) is not VectorizeMode.SYNC:
        fail("EZM steps its environments in the env runner: use more env runners instead of ASYNC.")
    if config.restart_failed_sub_environments:
        fail(
            "restart_failed_sub_environments would drop the episodes of all tasks of an env "
            "runner: leave it False. A failed environment is built again anyway, up to "
            ".tasks(..., max_consecutive_env_failures=n) times in a row."
        )
    if config.batch_mode != "truncate_episodes" and not config.in_evaluation:
        fail('EZM stores parts of episodes: leave batch_mode at "truncate_episodes".')
    if config.num_epochs != 1 or config.minibatch_size is not None:
        fail("EZM draws a new batch per update: leave num_epochs at 1 and minibatch_size unset.")
    if config.grad_clip_by != "global_norm":
        fail('EZM clips gradients by their global norm: leave grad_clip_by at "global_norm".')
    if config.evaluation_duration_unit != "episodes":
        fail('EZM evaluates full episodes: leave evaluation_duration_unit at "episodes".')


def _check_asynchrony(config: EZMConfig, fail: Fail) -> None:
    if config.evaluation_parallel_to_training:
        fail(
            "EZM trains beside an evaluation where .asynchrony(True) is set and the evaluation has "
            "env runners of its own (evaluation_num_env_runners=1): leave "
            "evaluation_parallel_to_training at False."
        )
    if not config.asynchronous:
        if config.num_reanalyze_workers:
            fail(
                f"num_reanalyze_workers={config.num_reanalyze_workers} work beside the learners: "
                "set .asynchrony(True), or leave it at 0."
            )
        return
    if config.in_evaluation:
        return
    for name, setter in (("num_env_runners", "env_runners"), ("num_learners", "learners")):
        if getattr(config, name) < 1:
            fail(
                f"Asynchronous training needs processes for everyone: set .{setter}({name}=1) or "
                "more."
            )
    if config.max_weight_age < config.weight_sync_interval:
        fail(
            f"max_weight_age={config.max_weight_age} updates is less than weight_sync_interval="
            f"{config.weight_sync_interval}: raise it."
        )


def _check_ranges(config: EZMConfig, fail: Fail) -> None:
    for name, smallest in INTEGERS_FROM.items():
        value = getattr(config, name)
        if not _allowed_none(name, value) and not (_is_integer(value) and value >= smallest):
            fail(f"{name}={value!r} must be an integer >= {smallest}{_or_none(name)}.")
    for name in (*NON_NEGATIVE, *POSITIVE, *FINITE, *FRACTIONS):
        value = getattr(config, name)
        if not _allowed_none(name, value) and not _is_finite(value):
            fail(f"{name}={value!r} must be a finite number{_or_none(name)}.")
    for name in NON_NEGATIVE:
        if getattr(config, name) < 0:
            fail(f"{name}={getattr(config, name)!r} must be >= 0; 0 switches it off.")
    for name in POSITIVE:
        value = getattr(config, name)
        if value is not None and value <= 0:
            fail(f"{name}={value!r} must be > 0{_or_none(name)}.")
    for name in FRACTIONS:
        if not 0.0 <= getattr(config, name) <= 1.0:
            fail(f"{name}={getattr(config, name)!r} must be in [0, 1].")
    for name in BOOLEANS:
        if not isinstance(getattr(config, name), bool):
            fail(f"{name}={getattr(config, name)!r} must be True or False.")
    for name, choices in CHOICES.items():
        if getattr(config, name) not in choices:
            fail(f"{name}={getattr(config, name)!r} is unknown; use one of {choices}.")
    if not (_is_finite(config.target_tau) and 0.0 < config.target_tau <= 1.0):
        fail(f"target_tau={config.target_tau!r} must be in (0, 1]; 1 copies the weights.")
    for name in ("gamma", "variance_window_decay"):
        value = getattr(config, name)
        if not (_is_finite(value) and 0.0 < value < 1.0):
            fail(f"{name}={value!r} must be in (0, 1).")
    if not isinstance(config.lr, (list, tuple)) and not (_is_finite(config.lr) and config.lr > 0):
        fail(f"lr={config.lr!r} must be a number > 0 or a schedule [[0, 1e-4], [100000, 1e-5]].")
    for name in ("reward_support", "value_support"):
        support = getattr(config, name)
        if not _is_range(support):
            fail(f"{name}={support!r} must be (low, high), two finite numbers with low < high.")
    if not isinstance(config.task_embedding, (list, tuple)):
        fail(f"task_embedding={config.task_embedding!r} must list any of {EMBEDDING_SITES}.")
    _check_precisions(config, fail)


def _check_precisions(config: EZMConfig, fail: Fail) -> None:
    if config.train_precision == "float16":
        fail('float16 training would need loss scaling: use train_precision="bfloat16".')
    if config.inference_precision == "float16" and not torch.cuda.is_available():
        fail('float16 needs a CUDA GPU: use inference_precision="bfloat16" or "float32".')


def _check_tasks(config: EZMConfig, fail: Fail) -> TaskSet:
    if not config.env_config.get("tasks"):
        fail('No tasks: call .tasks(["dmc:walker-stand", "dmc:walker-walk", ...]).')
    if config.env_config.get("termination") not in ("respect", "ignore"):
        fail(f'termination={config.env_config.get("termination")!r}: use "respect" or "ignore".')
    for name in ("envs_per_task", "max_consecutive_env_failures"):
        value: Any = config.env_config.get(name)
        if not _is_integer(value) or value < 1:
            fail(f"{name}={value!r} must be an integer >= 1.")
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
    if config.num_replay_actors > tasks.num_tasks:
        fail(
            f"num_replay_actors={config.num_replay_actors} share the rings of "
            f"{tasks.num_tasks} tasks: use at most {tasks.num_tasks}."
        )
    if config.num_replay_actors and not config.independent_replay:
        fail(
            "independent_replay=False has one ring for all tasks, which cannot be shared out: "
            "use num_replay_actors=0."
        )
    if config.policy_loss == "distribution" and config.reanalyze_ratio < 1.0:
        fail(
            'policy_loss="distribution" needs the candidates of a fresh search for every sample: '
            'use reanalyze_ratio=1, or policy_loss="best_action".'
        )


def _check_search(config: EZMConfig, fail: Fail) -> None:
    _check_planner(config, fail)
    options = config._model_config_auto_includes
    try:
        SearchSettings(**options["search"])
        if options["evaluation_search"]["num_simulations"] != 0:
            SearchSettings(**options["evaluation_search"])
    except (TypeError, ValueError) as error:
        fail(f"search(): {error}")
    if config.replayed_candidate and config.num_candidates < 2:
        fail("replayed_candidate=True leaves nothing of num_candidates=1 to the policy: use 2.")


def _check_planner(config: EZMConfig, fail: Fail) -> None:
    try:
        planner = planner_class(config.planner)
    except ValueError as error:
        fail(f"search(): {error}")
        return
    if planner.gives_candidates:
        return
    needed = " is for planners whose plans have candidates, which those of"
    if config.policy_loss == "distribution":
        fail(
            f'policy_loss="distribution"{needed} {planner.__name__} have not: use '
            'policy_loss="best_action".'
        )
    if config.replayed_candidate:
        fail(
            f"replayed_candidate=True{needed} {planner.__name__} have not: use "
            "replayed_candidate=False."
        )


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(map(_is_finite, value))
        and value[0] < value[1]
    )


def _allowed_none(name: str, value: Any) -> bool:
    return value is None and name in OPTIONAL


def _or_none(name: str) -> str:
    return ", or None" if name in OPTIONAL else ""
