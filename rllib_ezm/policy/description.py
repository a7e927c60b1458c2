"""What it takes to act with a trained agent, beside its weights: one JSON file, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.spaces import TaskSpaces

DESCRIPTION_FILE = "policy.json"
WEIGHTS_FILE = "weights.safetensors"

FORMAT = 1
"""Of the JSON; a reader refuses what is newer."""


@dataclass(frozen=True)
class PolicyTask:
    """A task that a policy knows.

    Attributes:
        name: Its name, e.g. "dmc:walker-walk".
        spaces: Observations and actions of its environment.
        action_repeat: Steps of the simulator per decision.
    """

    name: str
    spaces: TaskSpaces
    action_repeat: int


@dataclass(frozen=True)
class PolicyDescription:
    """Tasks and networks of a policy.

    Attributes:
        tasks: In order of the task ids.
        model: What `EZMConfig.model_settings` gives: sizes of the world model, settings of the
            searches, dims of the tasks.
        weights: Path of the weights, relative to the description.
        metadata: What else is to be known: version, training counters.
    """

    tasks: tuple[PolicyTask, ...]
    model: Mapping[str, Any]
    weights: str
    metadata: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Write `DESCRIPTION_FILE` into a folder."""
        values = {
            "format": FORMAT,
            "weights": self.weights,
            "metadata": {"rllib_ezm": version("rllib_ezm"), **self.metadata},
            "tasks": [
                {
                    "name": task.name,
                    "action_repeat": task.action_repeat,
                    "spaces": task.spaces.to_json(),
                }
                for task in self.tasks
            ],
            "model": dict(self.model),
        }
        text = json.dumps(values, indent=1, default=_name_of)
        (folder / DESCRIPTION_FILE).write_text(text + "\n")


def read_description(folder: Path) -> PolicyDescription:
    """Read it from a folder.

    Raises:
        UserError: There is none, or of a newer version.
    """
    file = folder / DESCRIPTION_FILE
    if not file.is_file():
        raise UserError(
            f"{folder} holds no policy: it has no {DESCRIPTION_FILE}. Give a checkpoint of this "
            "version of EZ-M (a folder checkpoint_...), or what `rllib-ezm export` wrote; an "
            "older checkpoint gets one by EZM.from_checkpoint(...).save_to_path(...)."
        )
    try:
        values: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if values.get("format", 0) > FORMAT:
        raise UserError(
            f"{file} was written by version {values['metadata'].get('rllib_ezm')} of rllib_ezm; "
            f"this is {version('rllib_ezm')}: update it."
        )
    return PolicyDescription(
        tasks=tuple(
            PolicyTask(task["name"], TaskSpaces.from_json(task["spaces"]), task["action_repeat"])
            for task in values["tasks"]
        ),
        model=values["model"],
        weights=values["weights"],
        metadata=values["metadata"],
    )


def _name_of(value: object) -> str:
    """In place of a planner class: its name, which tells whoever loads it what to give."""
    name = value if isinstance(value, type) else type(value)
    return f"{name.__module__}.{name.__qualname__}"
