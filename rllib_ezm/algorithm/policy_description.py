"""What `load_policy` needs of a checkpoint beside the weights, which RLlib's module writes."""

from __future__ import annotations

from typing import Any

from rllib_ezm.algorithm.checkpoint_evaluation import MODULE_PATH
from rllib_ezm.algorithm.rl_module import WEIGHTS_FILE
from rllib_ezm.policy.description import PolicyDescription, PolicyTask


def describe_policy(config: Any, num_updates: int) -> PolicyDescription:
    """The description of a checkpoint.

    Args:
        config: An `EZMConfig`.
        num_updates: Updates that its weights have seen.
    """
    return PolicyDescription(
        tasks=tuple(
            PolicyTask(spec.name, spec.spaces, spec.action_repeat)
            for spec in config.get_task_set().specs
        ),
        model=config.model_settings(),
        weights=(MODULE_PATH / WEIGHTS_FILE).as_posix(),
        metadata={"updates": num_updates},
    )
