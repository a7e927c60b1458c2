"""Validation of an EZMConfig: every wrong value gets an error that names the fix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from gymnasium import VectorizeMode

from rllib_ezm.algorithm.env_runner import ENV_NAME, MultiTaskEnvRunner
from rllib_ezm.algorithm.rllib_settings import OLD_HOOKS, RLlibSettings, overrides, unread
from rllib_ezm.algorithm.setters import GROUPS
from rllib_ezm.algorithm.setting_names import arguments
from rllib_ezm.search.registry import planner_class
from rllib_ezm.tasks.multitask import TaskSet
from rllib_ezm.tasks.watchdog import EXIT_FACTOR
from rllib_ezm.utils.settings import check_value
from rllib_ezm.utils.suggestion import did_you_mean

Config = Any
"""An `EZMConfig`, whose module imports this one."""

Fail = Callable[[str], Any]


def check_values(config: Config, fail: Fail) -> None:
    """Call `fail(message)` for the first setting that is out of range, or that nothing reads."""
    _check_rllib_settings(config, fail)
    _check_groups(config, fail)
    _check_model_config(config, fail)
    _check_callbacks(config, fail)
    message = unread(config, {"env": ENV_NAME, "num_envs_per_env_runner": 1})
    if message:
        fail(message)


def check_settings(config: Config, fail: Fail) -> None:
    """Call `fail(message)` for the first setting that does not fit another."""
    tasks = _check_tasks(config, fail)
    _check_batch(config, tasks, fail)
    _check_searches(config, fail)
    _check_asynchrony(config, fail)
    _check_evaluation(config, tasks, fail)


def _check_rllib_settings(config: Config, fail: Fail) -> None:
    if not config.enable_rl_module_and_learner or not config.enable_env_runner_and_connector_v2:
        fail("EZM needs RLlib's new API stack: do not call .api_stack(...) with False.")
    if config.framework_str != "torch":
        fail('EZM is in PyTorch: leave framework at "torch".')
    for name, ours in (
        ("env_runner_cls", MultiTaskEnvRunner),
        ("learner_class", config.get_default_learner_class()),
    ):
        given = getattr(config, name)
        if not (isinstance(given, type) and issubclass(given, ours)):
            fail(f"{name}={given!r} must be {ours.__name__}, or derived from it.")
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
        fail("To step environments in processes, set .tasks(..., num_env_processes=n), not ASYNC.")
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


def _check_groups(config: Config, fail: Fail) -> None:
    try:
        for group in (*GROUPS.values(), RLlibSettings):
            config.group(group)
    except ValueError as error:
        fail(str(error))


def _check_model_config(config: Config, fail: Fail) -> None:
    given = getattr(config, "_model_config", None)
    if not given:
        return
    own = config.rl_module_spec.module_class is not config.get_default_rl_module_spec().module_class
    known = config.model_settings()
    for name in given if isinstance(given, Mapping) else (type(given).__name__,):
        if name in known or not own:
            fail(
                f"rl_module(model_config=...) does not set {name!r}: EZM makes the model config of "
                "its settings, .world_model(latent_dim=...), .search(num_simulations=...) and "
                ".training(...). Only an RLModule class of your own may read other keys."
            )


def _check_callbacks(config: Config, fail: Fail) -> None:
    classes = config.callbacks_class
    for given in classes if isinstance(classes, list | tuple) else [classes]:
        for hook, instead in OLD_HOOKS.items():
            if isinstance(given, type) and overrides(given, hook):
                fail(f"{given.__name__}.{hook} would never be called: {instead}.")


def _check_evaluation(config: Config, tasks: TaskSet, fail: Fail) -> None:
    changes = config.evaluation_config
    if config.in_evaluation or not changes:
        return
    if isinstance(changes, Mapping) and changes.get("explore"):
        fail('EZM evaluates without exploration: leave "explore" out of the evaluation_config.')
    evaluation = config.get_evaluation_config_object()
    evaluation.validate()
    if evaluation.get_task_set().names != tasks.names:
        fail(
            "An evaluation plays the tasks that were trained, in their order: "
            f"{', '.join(tasks.names)}; leave them out of the evaluation_config. Other tasks are "
            "evaluated by a run of their own."
        )


def _check_tasks(config: Config, fail: Fail) -> TaskSet:
    options = config.env_config
    if not options.get("tasks"):
        fail('No tasks: call .tasks(["dmc:walker-stand", "dmc:walker-walk", ...]).')
    known = arguments(config.tasks.__func__)
    for name in options:
        if name not in known:
            fail(
                f"env_config has no {name!r}.{did_you_mean(name, known)} Options of a task are "
                ".tasks([...], action_repeat=2) or in its env_kwargs."
            )
    try:
        check_value("termination", options.get("termination"), Literal["respect", "ignore"])
        for name in ("envs_per_task", "max_consecutive_env_failures"):
            check_value(name, options.get(name), int, at_least=1)
        check_value("num_env_processes", options.get("num_env_processes", 0), int, at_least=0)
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
    if config.replay_device == "learner" and (config.num_learners or config.num_replay_actors):
        fail(
            'replay_device="learner" is for a learner in the process of the replay buffer: set '
            '.learners(num_learners=0) and num_replay_actors=0, or replay_device="host".'
        )


def _check_searches(config: Config, fail: Fail) -> None:
    _check_planner(config, fail)
    if config.replayed_candidate and config.num_candidates < 2:
        fail("replayed_candidate=True leaves nothing of num_candidates=1 to the policy: use 2.")
    if config.replayed_candidate and config.refined_candidates >= config.num_candidates:
        fail(
            "The replayed candidate is the last one and stays as it was taken: use "
            f"refined_candidates={config.num_candidates - 1} at most."
        )
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
