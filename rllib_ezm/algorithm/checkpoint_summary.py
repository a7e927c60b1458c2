"""What a checkpoint holds, as JSON beside RLlib's pickles: to look at it without executing it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ray.tune.result import TRAINING_ITERATION

from rllib_ezm.algorithm.setters import GROUPS
from rllib_ezm.algorithm.warm_start import WarmStartSettings
from rllib_ezm.execution.checkpointing import EZM_STATE
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.settings import defaults

SUMMARY_FILE = "summary.json"

NOT_SETTINGS = ("env_config", "_rl_module_spec", "algo_class", "class", "simple_optimizer")
"""Not listed as changes: the tasks have a table of their own, the rest RLlib fills in itself."""


class ChangedSetting(NamedTuple):
    """A setting whose value is not its default.

    Attributes:
        group: The setter of `EZMConfig` that sets it, or "RLlib" if it is none of EZ-M's settings.
        name: Its name.
        value: Its value.
        default: Its default.
    """

    group: str
    name: str
    value: Any
    default: Any


def changed_settings(config: Any) -> tuple[ChangedSetting, ...]:
    """Settings of an `EZMConfig` that differ from their default: EZ-M's groups, then RLlib's."""
    own = [
        ChangedSetting(setter, name, getattr(config, name), default)
        for setter, group in GROUPS.items()
        for name, default in defaults(group).items()
    ]
    names = {setting.name for setting in own} | {"warm_start_options"}
    start = defaults(WarmStartSettings)
    own += [
        ChangedSetting("warm_start", name, value, start.get(name))
        for name, value in (config.warm_start_options or {}).items()
    ]
    values, unchanged = config.to_dict(), type(config)().to_dict()
    others = [
        ChangedSetting("RLlib", name, value, unchanged.get(name))
        for name, value in sorted(values.items())
        if name not in NOT_SETTINGS and name.removeprefix("_") not in names
    ]
    return tuple(item for item in own + others if repr(item.value) != repr(item.default))


def write_summary(folder: Path, config: Any, state: dict[str, Any]) -> None:
    """Write counters, tasks and changed settings of an algorithm's state into its checkpoint.

    Args:
        folder: The checkpoint.
        config: The algorithm's config; values of settings are written as their `repr`.
        state: `EZM.get_state()`.
    """
    own = state[EZM_STATE]
    statistics = own["task_statistics"]
    returns = statistics["returns"]
    summary = {
        "counters": {
            "training iterations": state[TRAINING_ITERATION],
            "env steps": int(np.sum(statistics["env_steps"])),
            "updates": own["schedule"]["num_updates"],
            "checkpoints of this run": own["num_checkpoints"],
        },
        "tasks": [
            {
                "name": spec.name,
                "env_steps": int(statistics["env_steps"][index]),
                "episodes": int(statistics["episodes"][index]),
                "return_mean": float(np.mean(returns[index])) if returns[index] else None,
            }
            for index, spec in enumerate(config.get_task_set().specs)
        ],
        "changed_settings": [
            {
                "group": changed.group,
                "name": changed.name,
                "value": _text(changed.value),
                "default": _text(changed.default),
            }
            for changed in changed_settings(config)
        ],
    }
    (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=1) + "\n")


def read_summary(folder: Path) -> dict[str, Any]:
    """What `write_summary` wrote.

    Raises:
        UserError: There is none, as in checkpoints of earlier commits.
    """
    file = folder / SUMMARY_FILE
    if not file.is_file():
        raise UserError(
            f"{folder} has no {SUMMARY_FILE}: a version before 0.2 wrote it, with its counts in "
            "pickles alone. Write it anew: EZM.from_checkpoint(...).save_to_path(...)"
        )
    summary: dict[str, Any] = json.loads(file.read_text())
    return summary


def _text(value: Any) -> str:
    """The `repr`, without addresses of memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
