"""Validation of an EZMConfig: every wrong value gets an error that names the fix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from gymnasium import VectorizeMode

from rllib_ezm.algorithm.setters import GROUPS
from rllib_ezm.search.registry import planner_class
from rllib_ezm.tasks.multitask import TaskSet
from rllib_ezm.tasks.watchdog import EXIT_FACTOR
from rllib_ezm.utils.settings import check_value

Config = Any
"""An `EZMConfig`, whose module imports this one."""

Fail = Callable[[str], Any]

COUNTS = (
    "rollout_fragment_length",
    "metrics_num_episodes_for_smoothing",
    "evaluation_duration",
)
"""Settings of RLlib that must be integers from 1 on."""


def check_settings(config: Config, fail: Fail) -> None:
    """Call `fail(message)` for the first setting that is out of range or does not fit another."""
    _check_rllib_settings(config, fail)
    _check_values(config, fail)
    tasks = _check_tasks(config, fail)
    _check_batch(config, tasks, fail)
    _check_searches(config, fail)
    _check_asynchrony(config, fail)


def _check_rllib_settings(config: Config, fail: Fail) -> None:
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


def _check_asynchrony(config: Config, fail: Fail) -> None:
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


def _check_values(config: Config, fail: Fail) -> None:
    try:
        for group in GROUPS.values():
            config.group(group)
        for name in COUNTS:
            check_value(name, getattr(config, name), int, at_least=1)
    except ValueError as error:
        fail(str(error))


def _check_tasks(config: Config, fail: Fail) -> TaskSet:
    options = config.env_config
    if not options.get("tasks"):
        fail('No tasks: call .tasks(["dmc:walker-stand", "dmc:walker-walk", ...]).')
    try:
        check_value("termination", options.get("termination"), Literal["respect", "ignore"])
        for name in ("envs_per_task", "max_consecutive_env_failures"):
            check_value(name, options.get(name), int, at_least=1)
        timeout = options.get("env_step_timeout_s")
        check_value("env_step_timeout_s", timeout, float | None, above=0)
    except ValueError as error:
        fail(str(error))
    waiting = config.sample_timeout_s
    if timeout is not None and waiting is not None and waiting <= timeout * EXIT_FACTOR:
        fail(
            f"sample_timeout_s={waiting:g} drops the env steps of an env runner before an "
            f"environment that hangs is ended (env_step_timeout_s={timeout:g}): set "
            f".env_runners(sample_timeout_s={10 * timeout:g}), or a shorter env_step_timeout_s of "
            ".tasks(...)."
        )
    return config.get_task_set()


def _check_batch(config: Config, tasks: TaskSet, fail: Fail) -> None:
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


def _check_searches(config: Config, fail: Fail) -> None:
    _check_planner(config, fail)
    if config.replayed_candidate and config.num_candidates < 2:
        fail("replayed_candidate=True leaves nothing of num_candidates=1 to the policy: use 2.")
    if config.inference_precision == "float16" and not torch.cuda.is_available():
        fail('float16 needs a CUDA GPU: use inference_precision="bfloat16" or "float32".')


def _check_planner(config: Config, fail: Fail) -> None:
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
