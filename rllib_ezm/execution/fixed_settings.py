"""Settings that a restore cannot change: what a checkpoint holds has their shapes and units."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rllib_ezm.models.settings import WorldModelSettings
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.settings import settings_of

FIXED_SETTINGS_FILE = "fixed_settings.json"
"""In a checkpoint: name -> value of each."""

FIXED_SETTINGS = (*settings_of(WorldModelSettings), "capacity_per_task", "independent_replay")
"""The weights were learned with the first, the rings of the replay buffer have the others' sizes.

Every other setting of EZ-M may have another value where a checkpoint is restored.
"""


def fixed_settings(config: Any) -> dict[str, Any]:
    """Name -> value of each in a config, as JSON would return it (tuples are lists)."""
    values = {name: getattr(config, name) for name in FIXED_SETTINGS}
    normalized = values["normalized_action_dim"]
    if normalized is not None and normalized >= config.get_task_set().action_dim:
        values["normalized_action_dim"] = None  # all of them are
    as_json: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return as_json


def check_fixed_settings(stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuse a state that was made with other values.

    Raises:
        UserError: Names each that differs, with both values.
    """
    changed = [
        f"{name} {stored[name]!r} -> {value!r}"
        for name, value in current.items()
        if name in stored and stored[name] != value
    ]
    if changed:
        raise UserError(
            f"The checkpoint was made with other settings ({'; '.join(changed)}) that its weights "
            "and its replay buffer depend on: give them the values of the checkpoint, or begin "
            "anew. All other settings may change."
        )


def write_fixed_settings(folder: Path, values: Mapping[str, Any]) -> None:
    """Write them into a checkpoint."""
    (folder / FIXED_SETTINGS_FILE).write_text(json.dumps(values, indent=1) + "\n")


def read_fixed_settings(folder: Path) -> dict[str, Any]:
    """Those in a checkpoint; none if it is of an earlier commit."""
    file = folder / FIXED_SETTINGS_FILE
    values: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return values
