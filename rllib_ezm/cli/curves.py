"""A result of training as curves in a handful of groups, against env steps.

`score/`, `task/NAME/`, `loss/`, `speed/`, `probes/`, and `other/` for what is not known here, such
as metrics of the user's own callbacks. What only RLlib's developers need stays in the result files.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune.result import TIMESTEPS_TOTAL, TRAINING_ITERATION
from ray.tune.utils import flatten_dict

STEPS = (
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    f"env_runners/{NUM_ENV_STEPS_SAMPLED_LIFETIME}",
    TIMESTEPS_TOTAL,
    TRAINING_ITERATION,
)
"""Keys of the x axis: the first that a result has."""

INTERNAL = (
    r"config(/.*)?|pid|timestamp|done|(time|iterations)_since_restore|evaluation_score_mean"
    r"|(.*/)?(timers|fault_tolerance|env_runner_group|\w+_connector|\w+_throughput)/.*"
    r"|(.*/)?(weights_seq_no|module_train_batch_size_mean|actor_manager_num_\w+|num_healthy_workers"
    r"|num_(non_)?trainable_parameters|num_remote_worker_restarts|num_env_runners_dropped_lifetime"
    r"|num_(env|agent|module)_steps_(sampled|trained)\w*(/.*)?|num_training_step_calls\w*|\w+_timer"
    r"|env_to_module_sum_\w+|(agent|module)_episode_return_mean/.*|sample|time_between_sampling)"
    r"|learners/__all_modules__/.*|evaluation/tasks/.*/(random_score|success_score|action_repeat)"
)
"""Result keys without a curve."""

GROUPS = (
    (r"normalized_score_mean", "score/training"),
    (r"evaluation/normalized_score_mean", "score/evaluation"),
    (r"evaluation/normalized_score_iqm", "score/evaluation_iqm"),
    (r"env_runners/(episode_\w+)", r"score/\1"),
    (r"evaluation/env_runners/(episode_\w+)", r"score/evaluation_\1"),
    (r"tasks/(.+)", r"task/\1"),
    (r"evaluation/tasks/(.+)/info/(.+)", r"task/\1/evaluation_info/\2"),
    (r"evaluation/tasks/(.+)/([^/]+)", r"task/\1/evaluation_\2"),
    (r"learners/default_policy/(.+)", r"loss/\1"),
    (r"learners/(.+)", r"loss/\1"),
    (r"(?:throughput|perf)/(.+)", r"speed/\1"),
    (
        r"(time_this_iter_s|time_total_s|training_iteration|num_updates_lifetime|replay_\w+"
        r"|env_runner_restarts|checkpoint_failures|weight_bytes_sent|learner_idle_s"
        r"|(?:time_share|stage_seconds|staleness)/.+)",
        r"speed/\1",
    ),
    (r"(probes/.+)", r"\1"),
    (r"(.+)", r"other/\1"),
)
"""Result key -> curve; the first that matches."""


class Curves(NamedTuple):
    """One point of each curve: its x, and the values by name; a list is a distribution."""

    step: int
    values: dict[str, float | list[float]]


def curves(result: Mapping[str, Any]) -> Curves:
    """The points of one result; what is not a finite number or a list of numbers has none.

    Args:
        result: Of one training iteration, nested or with keys joined by "/".
    """
    flat = flatten_dict(dict(result))
    step = next((int(flat[key]) for key in STEPS if _is_number(flat.get(key))), 0)
    values: dict[str, float | list[float]] = {}
    for key, value in flat.items():
        if re.fullmatch(INTERNAL, key):
            continue
        if _is_number(value):
            values[_name(key)] = float(value)
        elif isinstance(value, list) and value and all(map(_is_number, value)):
            values[_name(key)] = [float(x) for x in value]
    return Curves(step, values)


def _name(key: str) -> str:
    for pattern, name in GROUPS:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(name)
    raise AssertionError(key)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
