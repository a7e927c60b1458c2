"""`EZMConfig.warm_start`: a new run that begins with what another one has learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch

from rllib_ezm.execution.checkpointing import REPLAY
from rllib_ezm.execution.fixed_settings import fixed_settings, read_fixed_settings
from rllib_ezm.models.growth import Growth
from rllib_ezm.models.settings import WorldModelSettings
from rllib_ezm.policy.description import PolicyDescription, read_description
from rllib_ezm.replay.grow import keep_rings
from rllib_ezm.replay.storage import load_state
from rllib_ezm.tasks.layout import TASKS_FILE, Layout, known_tasks, read_layout, task_layout
from rllib_ezm.tasks.relatives import relatives
from rllib_ezm.utils.checkpoint_folder import verify
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.settings import SettingsGroup, setting, settings_of

Config = Any
"""An `EZMConfig`, whose module imports this one."""

NETWORKS = ("model.", "target_model.")
"""Prefixes of the two networks in a module's weights."""

WINDOW = {"variance_window.low": torch.inf, "variance_window.high": -torch.inf}
"""Value-variance windows [T] in a module's weights -> the value of a task without updates."""

DIMS = "normalized_action_dim"
"""The setting of the world model that follows from the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class WarmStartSettings(SettingsGroup):
    """Where a new run gets its weights and its first replay buffer from."""

    checkpoint: str = setting("", "Folder of a checkpoint of EZ-M, on a local or shared disk.")
    new_task_embedding: str = setting(
        "mean",
        "Where the embedding of a task begins that the checkpoint does not know: the mean of those "
        "of all its tasks, of the nearest ones, or that of one of them.",
        note='"mean", "nearest" or the name of a task',
    )
    replay: Literal["keep", "empty"] = setting(
        "keep", "Whether the replay buffer begins with what the checkpoint's has of the same tasks."
    )


@dataclass(frozen=True)
class WarmStart:
    """A checkpoint, and how what it holds becomes that of a new run.

    Attributes:
        folder: The checkpoint.
        weights: The file with the weights of its module.
        growth: From its tasks to the new ones.
        known: Names of the new run's tasks that it knows.
        unknown: Names of those that it does not know.
        keeps_replay: Whether its replay buffer is kept.
    """

    folder: Path
    weights: Path
    growth: Growth
    known: tuple[str, ...]
    unknown: tuple[str, ...]
    keeps_replay: bool

    def module_state(self) -> dict[str, torch.Tensor]:
        """The state of the new run's module.

        Raises:
            UserError: A file of the checkpoint is missing or damaged.
        """
        part = "" if self.keeps_replay else self.weights.parent.relative_to(self.folder).as_posix()
        verify(self.folder, within=(part,))
        try:
            old = safetensors.torch.load_file(self.weights)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"warm_start: {self.weights} cannot be read: {error}") from error
        state = {name: self.growth.per_task(old[name], unknown) for name, unknown in WINDOW.items()}
        for prefix in NETWORKS:
            network = {
                name.removeprefix(prefix): tensor
                for name, tensor in old.items()
                if name.startswith(prefix)
            }
            state |= {prefix + name: x for name, x in self.growth.weights(network).items()}
        return state

    def replay_state(self, empty: Mapping[str, Any]) -> dict[str, Any]:
        """The state of the new run's replay buffer, given that of the empty one."""
        return keep_rings(empty, load_state(self.folder / REPLAY), self.growth.source)

    def __str__(self) -> str:
        replay = "kept" if self.keeps_replay else "empty"
        known, new = (", ".join(names) or "none" for names in (self.known, self.unknown))
        return f"from {self.folder}: known tasks {known}; new tasks {new}; replay buffer {replay}"


def plan_warm_start(config: Config) -> WarmStart | None:
    """What a new run of a config begins with; None where it begins with nothing.

    Raises:
        UserError: There is no such checkpoint, or it does not fit; the message names the fix.
        ValueError: An option has another type.
    """
    if config.warm_start_options is None:
        return None
    options = WarmStartSettings(**config.warm_start_options)
    if not options.checkpoint:
        raise UserError('No checkpoint: call .warm_start("path/to/checkpoint_000012", ...).')
    folder = Path(options.checkpoint)
    description, stored = _read(folder)
    _check_sizes(folder, config)
    current = task_layout(
        config.get_task_set().specs, config.env_config.get("termination", "respect")
    )
    source = known_tasks(stored, current)
    try:
        growth = Growth(
            old_obs_dims=[task["obs_dim"] for task in stored],
            old_action_dims=[task["action_dim"] for task in stored],
            obs_dims=[task["obs_dim"] for task in current],
            action_dims=[task["action_dim"] for task in current],
            source=source,
            relatives=relatives(stored, current, options.new_task_embedding),
        )
    except ValueError as error:
        raise UserError(
            f"warm_start: {error} Keep a task in .tasks([...]) that has as many as the widest one "
            "of the checkpoint."
        ) from error
    if options.replay == "keep":
        _check_replay(folder, config)
    names = [(task["name"], known) for task, known in zip(current, source, strict=True)]
    return WarmStart(
        folder,
        folder / description.weights,
        growth,
        known=tuple(name for name, known in names if known is not None),
        unknown=tuple(name for name, known in names if known is None),
        keeps_replay=options.replay == "keep",
    )


def check_warm_start(config: Config, fail: Callable[[str], Any]) -> None:
    """Call `fail(message)` where a config cannot begin with its checkpoint.

    A config that has been fitted to the checkpoint passes without it: a run that goes on from a
    checkpoint of its own needs that one no more.
    """
    options = config.warm_start_options
    if options is None or config.in_evaluation:
        return
    if getattr(config, DIMS) is not None and not Path(options.get("checkpoint", "")).exists():
        return
    try:
        plan_warm_start(config)
    except (UserError, ValueError, TypeError) as error:
        fail(str(error))
    fit_dynamics(config)


def fit_dynamics(config: Config) -> None:
    """Set `normalized_action_dim` to that of the checkpoint, if it can be read."""
    folder = (config.warm_start_options or {}).get("checkpoint")
    if not isinstance(folder, str) or not (Path(folder) / TASKS_FILE).is_file():
        return
    description, stored = _read(Path(folder))
    normalized = description.model["world_model"].get(DIMS)
    if normalized is None:
        normalized = max(task["action_dim"] for task in stored)
    if getattr(config, DIMS) != normalized:
        setattr(config, DIMS, normalized)


def _read(folder: Path) -> tuple[PolicyDescription, Layout]:
    stored = read_layout(folder)
    if stored is None:
        raise UserError(
            f"warm_start: {folder} is no checkpoint of EZ-M: it has no {TASKS_FILE}. Give a folder "
            "checkpoint_... of a run, on a disk of this machine; what `rllib-ezm export` writes "
            "lacks the parts that learn."
        )
    return read_description(folder), stored


def _check_sizes(folder: Path, config: Config) -> None:
    stored, current = read_fixed_settings(folder), fixed_settings(config)
    changed = {
        name: stored[name]
        for name in settings_of(WorldModelSettings)
        if name != DIMS and name in stored and stored[name] != current[name]
    }
    if changed:
        texts = (f"{name} {value!r} -> {current[name]!r}" for name, value in changed.items())
        fix = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        raise UserError(
            f"warm_start: the world model of {folder} has other settings ({'; '.join(texts)}): set "
            f".world_model({fix})."
        )


def _check_replay(folder: Path, config: Config) -> None:
    stored = read_fixed_settings(folder)
    if not (folder / REPLAY).is_dir():
        cause, fix = f"{folder} holds no replay buffer", ""
    elif not (config.independent_replay and stored.get("independent_replay", True)):
        cause, fix = "with independent_replay=False, all tasks share one ring", ""
    elif stored.get("capacity_per_task", config.capacity_per_task) != config.capacity_per_task:
        capacity = stored["capacity_per_task"]
        cause = f"the rings of {folder} have capacity_per_task={capacity}"
        fix = f".replay(capacity_per_task={capacity}) or "
    else:
        return
    raise UserError(f'warm_start: {cause}: set {fix}.warm_start(..., replay="empty").')
