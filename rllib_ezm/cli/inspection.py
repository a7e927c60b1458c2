"""What a checkpoint of EZM holds, without building the algorithm: `rllib-ezm inspect`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID
from rich.table import Table

from rllib_ezm.algorithm.checkpoint_summary import read_summary
from rllib_ezm.execution.checkpointing import REPLAY
from rllib_ezm.replay.storage import load_state
from rllib_ezm.utils.checkpoint_folder import MANIFEST_FILE, package_versions, verify
from rllib_ezm.utils.errors import UserError


@dataclass(frozen=True)
class TaskSummary:
    """One task.

    Attributes:
        name: Its name.
        env_steps: Decisions collected.
        episodes: Episodes finished.
        return_mean: Mean of the latest returns; None before the first.
        stored: Transitions in the replay buffer; None without a buffer.
        fill: Used share of the task's ring (of the one ring, if all tasks share it).
    """

    name: str
    env_steps: int
    episodes: int
    return_mean: float | None
    stored: int | None
    fill: float | None


@dataclass(frozen=True)
class CheckpointSummary:
    """A checkpoint whose files are all as they were written.

    Attributes:
        path: Its folder.
        written: When.
        counters: Name -> number: iterations, env steps, updates, ...
        tasks: One row per task.
        changed: The settings that differ from their default: `group` (the setter of `EZMConfig`, or
            "RLlib"), `name`, `value` and `default`, as text.
        sizes: Part of the checkpoint -> bytes on disk.
        versions: Package -> (version that wrote it, version installed here).
    """

    path: Path
    written: datetime
    counters: dict[str, int]
    tasks: tuple[TaskSummary, ...]
    changed: tuple[dict[str, str], ...]
    sizes: dict[str, int]
    versions: dict[str, tuple[str, str]]

    def to_rich_tables(self) -> Iterator[Table]:
        """Return the tables for the screen, one after the other."""
        yield _table(
            "Checkpoint, all files as they were written",
            ("", ""),
            [
                ("folder", str(self.path)),
                ("written", f"{self.written:%Y-%m-%d %H:%M:%S}"),
                *((name, f"{count:,}") for name, count in self.counters.items()),
            ],
        )
        yield _table(
            "Tasks",
            ("task", "env steps", "episodes", "return", "in replay", "ring filled"),
            [
                (
                    task.name,
                    f"{task.env_steps:,}",
                    f"{task.episodes:,}",
                    "n/a" if task.return_mean is None else f"{task.return_mean:.1f}",
                    "not stored" if task.stored is None else f"{task.stored:,}",
                    "n/a" if task.fill is None else f"{task.fill:.1%}",
                )
                for task in self.tasks
            ],
        )
        yield _table(
            "Settings that differ from the default",
            ("set by", "setting", "value", "default"),
            [
                (changed["group"], changed["name"], changed["value"], changed["default"])
                for changed in self.changed
            ],
        )
        yield _table(
            "Size on disk",
            ("part", "bytes"),
            [(name, f"{size:,}") for name, size in self.sizes.items()],
        )
        yield _table(
            "Versions",
            ("package", "written with", "here"),
            [(name, *versions) for name, versions in self.versions.items()],
        )


def inspect_checkpoint(path: Path) -> CheckpointSummary:
    """Check all files of a checkpoint, and read what it holds; no pickle is opened.

    Raises:
        UserError: If `path` is not a checkpoint of EZM, or a file of it is missing or damaged.
    """
    if not (path / MANIFEST_FILE).is_file():
        raise UserError(f"{path} is not a whole checkpoint of EZM: it lacks {MANIFEST_FILE}")
    manifest = verify(path)
    summary = read_summary(path)
    replay = load_state(path / REPLAY) if (path / REPLAY).is_dir() else None
    return CheckpointSummary(
        path=path,
        written=datetime.fromtimestamp((path / MANIFEST_FILE).stat().st_mtime),
        counters=summary["counters"],
        tasks=tuple(_tasks(summary["tasks"], replay)),
        changed=tuple(summary["changed_settings"]),
        sizes=_sizes(manifest["files"]),
        versions=_versions(manifest["versions"]),
    )


def _tasks(tasks: list[dict[str, Any]], replay: dict[str, Any] | None) -> Iterator[TaskSummary]:
    stored: Any = None
    fills: list[float] = []
    if replay is not None:
        rings = [replay["rings"][name] for name in sorted(replay["rings"], key=int)]
        stored = np.sum([ring["counters"]["stored"] for ring in rings], axis=0)
        capacity = replay["layout"]["ring_capacity"]
        fills = [len(ring["columns"]["serials"]) / capacity for ring in rings]
    for index, task in enumerate(tasks):
        yield TaskSummary(
            **task,
            stored=None if stored is None else int(stored[index]),
            fill=fills[index if len(fills) > 1 else 0] if fills else None,
        )


def _sizes(files: dict[str, dict[str, int]]) -> dict[str, int]:
    """Bytes of each part of a checkpoint, and of all together."""
    sizes: dict[str, int] = defaultdict(int)
    for name, entry in files.items():
        if name.startswith("replay/"):
            part = "replay buffer"
        elif f"/{DEFAULT_MODULE_ID}/" in name:
            part = "weights"
        elif name.startswith("learner_group/"):
            part = "optimizer and learner"
        else:
            part = "config, counters, metrics"
        sizes[part] += entry["bytes"]
    return {**dict(sorted(sizes.items())), "all": sum(sizes.values())}


def _versions(written: dict[str, str]) -> dict[str, tuple[str, str]]:
    installed = package_versions()
    return {
        name: (written.get(name, "absent"), installed.get(name, "absent"))
        for name in sorted(written | installed)
    }


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    """A table whose first column is text."""
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(columns):
        is_text = index == 0 or columns[0] in ("set by", "package")
        table.add_column(name, justify="left" if is_text else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
