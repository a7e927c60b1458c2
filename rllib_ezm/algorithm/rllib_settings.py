"""RLlib's own settings: those that EZ-M reads, with their ranges, and those that it does not.

`tests/algorithm/test_rllib_surface.py` holds that every argument of RLlib's setters is in a table.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback

from rllib_ezm.utils.settings import SettingsGroup, setting

SETTERS = (
    "api_stack",
    "callbacks",
    "checkpointing",
    "debugging",
    "env_runners",
    "environment",
    "evaluation",
    "experimental",
    "fault_tolerance",
    "framework",
    "learners",
    "multi_agent",
    "offline_data",
    "python_environment",
    "reporting",
    "resources",
    "rl_module",
    "training",
)
"""The methods of `AlgorithmConfig` that set something."""


@dataclass(frozen=True, kw_only=True)
class RLlibSettings(SettingsGroup):
    """RLlib's settings that EZ-M reads; the defaults are those of `EZMConfig`."""

    num_env_runners: int = setting(
        0, "Processes that collect; 0: the algorithm's own does.", at_least=0
    )
    create_local_env_runner: bool = setting(
        True, "Whether the algorithm's process has an env runner beside those."
    )
    create_env_on_local_worker: bool = setting(
        False, "Whether that one has environments although there are others."
    )
    num_cpus_per_env_runner: float = setting(1, "Ray's CPUs of each env runner.", at_least=0)
    num_gpus_per_env_runner: float = setting(
        0, "Ray's GPUs of each env runner; a fraction shares one.", at_least=0
    )
    validate_env_runners_after_construction: bool = setting(
        True, "Whether the start waits for all env runners."
    )
    sample_timeout_s: float | None = setting(
        600.0,
        "How long env runners may take for a fragment [s]; None: for ever. What hangs is ended "
        "before, see `env_step_timeout_s`.",
        at_least=0,
    )
    max_requests_in_flight_per_env_runner: int = setting(
        1, "Requests that an env runner may have before it.", at_least=1
    )
    episode_lookback_horizon: int = setting(
        1, "Decisions of the past that connectors see at the start of a fragment.", at_least=0
    )
    add_default_connectors_to_env_to_module_pipeline: bool = setting(
        True, "Whether RLlib's connectors follow those of `env_to_module_connector`."
    )
    add_default_connectors_to_module_to_env_pipeline: bool = setting(
        True, "Whether RLlib's connectors follow those of `module_to_env_connector`."
    )
    merge_env_runner_states: bool | Literal["training_only"] = setting(
        "training_only", "Whether the states of stateful connectors are merged."
    )
    broadcast_env_runner_states: bool = setting(
        True, "Whether all env runners get the merged states of connectors."
    )
    rollout_fragment_length: int = setting(
        10, "Decisions of a slot between two looks at the updates that are due.", at_least=1
    )
    explore: bool = setting(True, "Whether env runners explore in training.")
    num_learners: int = setting(0, "Processes that learn; 0: the algorithm's own does.", at_least=0)
    num_cpus_per_learner: float | Literal["auto"] = setting(
        "auto", "Ray's CPUs of each learner.", at_least=0
    )
    num_gpus_per_learner: float = setting(0, "Ray's GPUs of each learner.", at_least=0)
    local_gpu_idx: int = setting(0, "The GPU of a learner in the algorithm's process.", at_least=0)
    max_requests_in_flight_per_learner: int = setting(
        3, "Requests that a learner may have before it.", at_least=1
    )
    evaluation_interval: int | None = setting(
        None, "Iterations between two evaluations; None: there are none.", at_least=1
    )
    evaluation_duration: int = setting(5, "Episodes of each task in an evaluation.", at_least=1)
    evaluation_num_env_runners: int = setting(
        0, "Processes that evaluate; 0: the algorithm's own does.", at_least=0
    )
    evaluation_unhealthy_workers_timeout_s: float = setting(
        0.0, "How long an evaluation waits for a lost env runner [s].", at_least=0
    )
    evaluation_error_after_n_consecutive_skips: int | None = setting(
        None, "Skipped evaluations in a row that end the training; None: any number.", at_least=1
    )
    evaluation_sample_timeout_s: float | None = setting(
        3600.0,
        "How long an evaluation may take [s]; a longer one does not count. None: for ever.",
        at_least=0,
    )
    metrics_num_episodes_for_smoothing: int = setting(
        10, "Latest episodes of a task that its mean return is over.", at_least=1
    )
    min_time_s_per_iteration: float | None = setting(None, "Shortest iteration [s].", at_least=0)
    min_sample_timesteps_per_iteration: int = setting(
        500, "Fewest env steps of an iteration.", at_least=0
    )
    log_level: Literal["DEBUG", "INFO", "WARN", "ERROR"] | None = setting(
        "WARN", "What RLlib's processes log."
    )
    seed: int | None = setting(
        None, "Seed of the run; None: another one each time.", at_least=0, at_most=2**32 - 1
    )
    restart_failed_env_runners: bool = setting(True, "Whether Ray restarts a lost env runner.")
    ignore_env_runner_failures: bool = setting(
        False, "Whether training goes on without a lost one that is not restarted."
    )
    max_num_env_runner_restarts: int = setting(
        1000, "Restarts of an env runner that end the training.", at_least=0
    )
    delay_between_env_runner_restarts_s: float = setting(
        1.0, "Wait before a restart [s].", at_least=0
    )
    num_consecutive_env_runner_failures_tolerance: int = setting(
        100, "Failures of env runners in a row that are borne.", at_least=0
    )
    env_runner_health_probe_timeout_s: float = setting(
        0.2, "How long a lost env runner is asked whether it is back [s].", at_least=0
    )
    env_runner_restore_timeout_s: float = setting(
        1800.0, "How long a restarted one may take to get its state [s].", at_least=0
    )
    num_cpus_for_main_process: float = setting(
        1, "Ray's CPUs of the algorithm's process.", at_least=0
    )
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = setting(
        "PACK", "How Ray places a trial's processes on the nodes."
    )


CHECKED_BY_RLLIB = (
    "callbacks_class",
    "env_runner_cls",
    "env_to_module_connector",
    "module_to_env_connector",
    "learner_class",
    "rl_module_spec",
    "custom_evaluation_function",
    "custom_stats_cls_lookup",
    "custom_resources_per_env_runner",
    "custom_resources_per_learner",
    "custom_resources_for_main_process",
    "learner_config_dict",
    "_validate_config",
)
"""Settings that EZ-M reads and that are classes, functions and dicts: RLlib checks them, as it does
the `on_...` functions of `.callbacks()`."""

CHECKED_IN_CONTEXT = (
    "env_config",
    "evaluation_config",
    "model_config",
    "framework",
    "enable_rl_module_and_learner",
    "enable_env_runner_and_connector_v2",
    "num_envs_per_env_runner",
    "gym_env_vectorize_mode",
    "batch_mode",
    "restart_failed_sub_environments",
    "num_epochs",
    "minibatch_size",
    "grad_clip_by",
    "evaluation_duration_unit",
    "evaluation_parallel_to_training",
    "policies",
    "_use_msgpack_checkpoints",
)
"""Settings with one right value, or a meaning of their own, see `validation`."""

_TASKS = 'EZM plays its tasks: .tasks(["dmc:walker-run", ...])'
_ACTIONS = "EZM's actions are in [-1, 1] and scaled to each task's own bounds"
_OBSERVATIONS = (
    "EZM normalizes observations itself; a connector of your own may change them before: "
    ".env_runners(env_to_module_connector=...)"
)
_NETWORKS = "EZM's networks are set by .world_model(latent_dim=..., num_blocks=...)"
_OPTIMIZER = "EZM's optimizer is Adam, set by .training(lr=..., weight_decay=..., grad_clip=...)"
_BATCH = "batches come from the replay buffer: .training(train_batch_size_per_learner=...)"
_OWN_EXPERIENCE = "EZM learns from the experience that it collects itself, not from files"
_SINGLE_AGENT = "EZM is single-agent: several tasks are .tasks([...])"
_EXPLORATION = "EZM explores as .search(...) and .training(num_random_steps=...) say"
_OLD_STACK = "it is of RLlib's old API stack"
_TENSORFLOW = "EZM is in PyTorch"
_COMPILE = 'updates are compiled by .training(compile="default"), acting is not'
_FRESH_EPISODES = "an evaluation is evaluation_duration full episodes of each task"
_RATIO = "the pace of learning is .training(replay_ratio=...)"

UNREAD: MappingProxyType[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("env", "observation_space", "action_space", "action_mask_key"), _TASKS),
        "disable_env_checking": _TASKS,
        "is_atari": _TASKS,
        "render_env": "videos are `rllib evaluate CHECKPOINT --video DIR`",
        "clip_rewards": "rewards are predicted within .world_model(reward_support=(low, high))",
        **dict.fromkeys(("normalize_actions", "clip_actions"), _ACTIONS),
        "observation_filter": _OBSERVATIONS,
        **dict.fromkeys(("preprocessor_pref", "_disable_preprocessor_api"), _OBSERVATIONS),
        "compress_observations": "observations are stored as they are, in float32",
        "exploration_config": _EXPLORATION,
        "episodes_to_numpy": "the replay buffer stores arrays: leave it True",
        "use_env_runner_state_server": "weights are sent every weight_sync_interval updates",
        "env_runner_state_server_max_concurrency": "see use_env_runner_state_server",
        **dict.fromkeys(
            (
                "use_worker_filter_stats",
                "update_worker_filter_stats",
                "sample_collector",
                "remote_worker_envs",
                "remote_env_batch_wait_ms",
                "sampler_perf_stats_ema_coef",
                "fake_sampler",
                "enable_connectors",
                "env_task_fn",
                "always_attach_evaluation_results",
                "replay_mode",
                "policy_map_cache",
                "_enable_rl_module_api",
                "keep_per_episode_custom_metrics",
                "metrics_episode_collection_timeout_s",
                "checkpoint_trainable_policies_only",
                "_disable_action_flattening",
                "_disable_initialize_loss_from_dummy_batch",
            ),
            _OLD_STACK,
        ),
        **dict.fromkeys(
            (
                "enable_tf1_exec_eagerly",
                "eager_tracing",
                "eager_max_retraces",
                "tf_session_args",
                "local_tf_session_args",
                "_tf_policy_handles_more_than_one_loss",
            ),
            _TENSORFLOW,
        ),
        **dict.fromkeys(
            (
                "torch_compile_learner",
                "torch_compile_learner_what_to_compile",
                "torch_compile_learner_dynamo_mode",
                "torch_compile_learner_dynamo_backend",
                "torch_compile_worker",
                "torch_compile_worker_dynamo_backend",
                "torch_compile_worker_dynamo_mode",
            ),
            _COMPILE,
        ),
        "torch_ddp_kwargs": "EZM's learners share gradients and statistics without DDP",
        "torch_skip_nan_gradients": (
            "updates that are not finite are skipped: "
            ".training(max_consecutive_nonfinite_updates=...)"
        ),
        "_torch_grad_scaler_class": "lower precision is .training(train_precision=...)",
        "_torch_lr_scheduler_classes": ("schedules are .training(lr=[[0, 1e-4], [100000, 1e-5]])"),
        "log_gradients": "the result has learners/default_policy/gradient_norm anyway",
        "train_batch_size": _BATCH,
        "shuffle_batch_per_epoch": _BATCH,
        "learner_connector": _BATCH,
        "add_default_connectors_to_learner_pipeline": _BATCH,
        **dict.fromkeys(
            (
                "num_aggregator_actors_per_learner",
                "max_requests_in_flight_per_aggregator_actor",
            ),
            _BATCH,
        ),
        "model": _NETWORKS,
        "optimizer": _OPTIMIZER,
        **dict.fromkeys(
            (
                "policy_map_capacity",
                "policy_mapping_fn",
                "policies_to_train",
                "policy_states_are_swappable",
                "observation_fn",
                "count_steps_by",
                "algorithm_config_overrides_per_module",
            ),
            _SINGLE_AGENT,
        ),
        **dict.fromkeys(
            (
                "input_",
                "offline_data_class",
                "input_read_method",
                "input_read_method_kwargs",
                "input_read_schema",
                "input_read_episodes",
                "input_read_sample_batches",
                "input_read_batch_size",
                "input_filesystem",
                "input_filesystem_kwargs",
                "input_compress_columns",
                "materialize_data",
                "materialize_mapped_data",
                "map_batches_kwargs",
                "iter_batches_kwargs",
                "ignore_final_observation",
                "prelearner_class",
                "prelearner_buffer_class",
                "prelearner_buffer_kwargs",
                "prelearner_module_synch_period",
                "prelearner_use_recorded_module_states",
                "dataset_num_iters_per_learner",
                "input_config",
                "actions_in_input_normalized",
                "postprocess_inputs",
                "shuffle_buffer_size",
                "output",
                "output_config",
                "output_compress_columns",
                "output_max_file_size",
                "output_max_rows_per_file",
                "output_write_remaining_data",
                "output_write_method",
                "output_write_method_kwargs",
                "output_filesystem",
                "output_filesystem_kwargs",
                "output_write_episodes",
                "offline_sampling",
                "off_policy_estimation_methods",
                "ope_split_batch_by_episode",
                "offline_evaluation_interval",
                "num_offline_eval_runners",
                "offline_evaluation_type",
                "offline_eval_runner_class",
                "offline_loss_for_module_fn",
                "offline_eval_batch_size_per_runner",
                "dataset_num_iters_per_offline_eval_runner",
                "offline_eval_rl_module_inference_only",
                "num_cpus_per_offline_eval_runner",
                "num_gpus_per_offline_eval_runner",
                "custom_resources_per_offline_eval_runner",
                "offline_evaluation_timeout_s",
                "max_requests_in_flight_per_offline_eval_runner",
                "broadcast_offline_eval_runner_states",
                "validate_offline_eval_runners_after_construction",
                "restart_failed_offline_eval_runners",
                "ignore_offline_eval_runner_failures",
                "max_num_offline_eval_runner_restarts",
                "offline_eval_runner_health_probe_timeout_s",
                "offline_eval_runner_restore_timeout_s",
                "on_evaluate_offline_start",
                "on_evaluate_offline_end",
                "on_offline_eval_runners_recreated",
            ),
            _OWN_EXPERIENCE,
        ),
        **dict.fromkeys(
            (
                "evaluation_auto_duration_min_env_steps_per_sample",
                "evaluation_auto_duration_max_env_steps_per_sample",
                "evaluation_force_reset_envs_before_iteration",
            ),
            _FRESH_EPISODES,
        ),
        "min_train_timesteps_per_iteration": (
            "iterations are as long as .reporting(min_sample_timesteps_per_iteration=...) says; "
            f"{_RATIO}"
        ),
        "export_native_model_files": "weights are in each checkpoint as weights.safetensors",
        "log_sys_usage": "Ray's dashboard shows the usage of each node",
        "extra_python_environs_for_driver": "set it in the shell that starts the run",
        "extra_python_environs_for_worker": 'ray.init(runtime_env={"env_vars": {...}}) sets it',
        "num_gpus": "learners have GPUs: .learners(num_gpus_per_learner=1)",
        "_fake_gpus": "learners have GPUs: .learners(num_gpus_per_learner=1)",
    }
)
"""Setting of RLlib that EZ-M does not read -> what is set instead, or why there is nothing to."""

ATTRIBUTES = {
    "is_atari": "_is_atari",
    "framework": "framework_str",
    "model_config": "_model_config",
    "rl_module_spec": "_rl_module_spec",
    "learner_class": "_learner_class",
    "learner_connector": "_learner_connector",
    "env_to_module_connector": "_env_to_module_connector",
    "module_to_env_connector": "_module_to_env_connector",
    "custom_stats_cls_lookup": "stats_cls_lookup",
    "dataset_num_iters_per_offline_eval_runner": "dataset_num_iters_per_eval_runner",
    "train_batch_size_per_learner": "_train_batch_size_per_learner",
}
"""Argument of a setter -> attribute of the config, where RLlib calls it otherwise."""

OLD_HOOKS = {
    "on_sub_environment_created": "on_environment_created is called with the environments",
    "on_create_policy": "on_algorithm_init is called with the algorithm and its modules",
    "on_postprocess_trajectory": "on_sample_end is called with the episodes",
    "on_learn_on_batch": "on_train_result is called after the updates",
    **dict.fromkeys(
        (
            "on_evaluate_offline_start",
            "on_evaluate_offline_end",
            "on_offline_eval_runners_recreated",
        ),
        _OWN_EXPERIENCE,
    ),
}
"""Hooks of RLlib's callbacks that are never called here -> what there is instead."""


def attribute(name: str) -> str:
    """Name of the attribute that an argument of RLlib's setters sets."""
    if name.startswith("on_"):
        return f"callbacks_{name}"
    return ATTRIBUTES.get(name, name)


def overrides(callbacks: type[Any], hook: str) -> bool:
    """Whether a class of callbacks has its own method for a hook."""
    return getattr(callbacks, hook, None) is not getattr(RLlibCallback, hook)


def is_deprecated(name: str) -> bool:
    """Whether an argument of RLlib's setters is one that RLlib itself refuses."""
    return attribute(name) not in _defaults()


def unread(config: Any, expected: dict[str, Any]) -> str | None:
    """What is wrong with the first setting that is not read and yet has another value.

    Args:
        config: An `EZMConfig`.
        expected: Values where they are not RLlib's defaults.

    Returns:
        A message that says what is set instead; None if there is no such setting.
    """
    values = vars(config)
    for name, instead in UNREAD.items():
        key = attribute(name)
        default = expected.get(key, _defaults()[key])
        value = values.get(key, default)
        if value != default and repr(value) != repr(default):
            long = max(len(repr(value)), len(repr(default))) > 80
            given, leave = ("", "") if long else (f"={value!r}", f" Leave it at {default!r}.")
            return f"EZM does not read {name}{given}: {instead}.{leave}"
    return None


@functools.cache
def _defaults() -> dict[str, Any]:
    return vars(AlgorithmConfig())
