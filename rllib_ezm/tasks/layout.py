"""What a training's tasks are, as plain data: kept in a checkpoint, compared at a restore."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rllib_ezm.tasks.spec import TaskSpec
from rllib_ezm.utils.errors import UserError

TASKS_FILE = "tasks.json"
"""In a checkpoint: its layout."""

Task = dict[str, Any]
Layout = list[Task]


def task_layout(specs: Sequence[TaskSpec], termination: str) -> Layout:
    """What makes each task the one that was learned, in order of the task ids.

    Args:
        specs: The tasks.
        termination: "respect" or "ignore", see `PadTask`.

    Returns:
        Per task `name`, `obs_dim`, `action_dim`, `action_repeat`, `termination`, and `env_kwargs`
        where the environment has some, their values as JSON (objects by the name of their type).
    """
    return [
        {
            "name": spec.name,
            "obs_dim": spec.dims[0],
            "action_dim": spec.dims[1],
            "action_repeat": spec.action_repeat,
            "termination": termination,
            **_env_kwargs(spec),
        }
        for spec in specs
    ]


def _env_kwargs(spec: TaskSpec) -> dict[str, dict[str, str]]:
    if not isinstance(spec.make, functools.partial) or not spec.make.keywords:
        return {}
    keywords = spec.make.keywords.items()
    return {"env_kwargs": {name: json.dumps(value, default=_type_name) for name, value in keywords}}


def _type_name(value: object) -> str:
    return type(value).__qualname__


def match_tasks(stored: Layout, current: Layout) -> list[int]:
    """Find each task of a config in a checkpoint, by name.

    Returns:
        For each task of `current` its id in `stored`.

    Raises:
        UserError: The tasks differ in their names or in anything else of the layout; shows both.
    """
    theirs, ours = ([task["name"] for task in layout] for layout in (stored, current))
    if sorted(theirs) != sorted(ours):
        raise UserError(
            f"The checkpoint holds the tasks {theirs} and this config has others: {ours}. Restore "
            "it with .tasks(...) of the tasks of the checkpoint."
        )
    source = [theirs.index(name) for name in ours]
    if changed := _changes(stored, current, source):
        raise UserError(
            f"The checkpoint was made with other settings of its tasks ({'; '.join(changed)}), so "
            "what it has learned and stored does not fit: give the tasks the settings of the "
            "checkpoint, or begin anew."
        )
    return source


def known_tasks(stored: Layout, current: Layout) -> list[int | None]:
    """Find the tasks of a config that a checkpoint has too, by name.

    Returns:
        For each task of `current` its id in `stored`; None for one that is not there.

    Raises:
        UserError: A task of both differs in anything else of the layout.
    """
    ids = {task["name"]: number for number, task in enumerate(stored)}
    source = [ids.get(task["name"]) for task in current]
    if changed := _changes(stored, current, source):
        raise UserError(
            f"The checkpoint knows tasks of the same name with other settings "
            f"({'; '.join(changed)}): give them the settings of the checkpoint, or a name of their "
            "own (dataclasses.replace(spec, name=...)), by which they count as new."
        )
    return source


def _changes(stored: Layout, current: Layout, source: Sequence[int | None]) -> list[str]:
    """What is not the same of each task that is in both, with both values."""
    return [
        f"{new['name']}: {name} {stored[old].get(name)!r} -> {new.get(name)!r}"
        for old, new in zip(source, current, strict=True)
        if old is not None
        for name in sorted(stored[old] | new)
        if stored[old].get(name) != new.get(name)
    ]


def write_layout(folder: Path, layout: Layout) -> None:
    """Write it into a checkpoint."""
    (folder / TASKS_FILE).write_text(json.dumps(layout, indent=1) + "\n")


def read_layout(folder: Path) -> Layout | None:
    """The layout in a checkpoint; None if there is none, as of earlier commits."""
    file = folder / TASKS_FILE
    if not file.is_file():
        return None
    layout: Layout = json.loads(file.read_text())
    return layout
