"""What a study is: its description in a Python file, and the runs that follow from it."""

from __future__ import annotations

import re
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rllib_ezm.utils.errors import UserError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")
"""Of a variant: it becomes a folder, and the report takes what follows `_seed` for a seed."""


@dataclass(frozen=True)
class Evaluation:
    """How runs are evaluated.

    Attributes:
        episodes: Full episodes per task at the end of a run, and where halving compares.
        seed: Seed of these episodes: every run plays the same starts.
        interval_episodes: Episodes per task of the evaluations during training; None: as the base.
        interval_iterations: Iterations between those; None: as the base.
    """

    episodes: int = 10
    seed: int = 12345
    interval_episodes: int | None = 3
    interval_iterations: int | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        """As settings of `--set`."""
        values = {
            "evaluation_interval": self.interval_iterations,
            "evaluation_duration": self.interval_episodes,
        }
        return tuple(f"evaluation.{k}={v}" for k, v in values.items() if v is not None)


@dataclass(frozen=True)
class Study:
    """Variants of one experiment file, trained with equal budgets.

    Attributes:
        base: The experiment file, relative to the study file.
        variants: Name -> settings as `rllib train file --set` takes them.
        seeds: Seeds of each variant.
        cpu_seconds: Budget of a run: user and system seconds of all of its processes over all of
            its lives, evaluations during training included; None for none.
        decisions: Budget of a run: decisions per task; None for none.
        tasks: Tasks of one network; empty for those of the base.
        action_repeat: Simulator steps per decision of `tasks`.
        settings: Settings of all variants, before their own.
        halving: Fractions of the budget, ascending, after which the worse half of the variants is
            dropped; empty for none.
        evaluation: How runs are evaluated.
        checkpoint_minutes: Minutes between checkpoints: what a power cut can cost.
        frozen: Whether it is run once with settings chosen elsewhere, which `--frozen` confirms.

    Raises:
        ValueError: If a name or a number is out of range.
    """

    base: str
    variants: Mapping[str, Sequence[str]]
    seeds: Sequence[int] = (0, 1)
    cpu_seconds: float | None = None
    decisions: int | None = None
    tasks: Sequence[str] = ()
    action_repeat: int = 2
    settings: Sequence[str] = ()
    halving: Sequence[float] = ()
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoint_minutes: float = 3.0
    frozen: bool = False

    def __post_init__(self) -> None:
        wrong = [name for name in self.variants if not NAME.fullmatch(name) or "_seed" in name]
        if not self.variants or wrong:
            raise ValueError(
                "variants must have names of letters, digits, dots and underscores, without "
                f"`_seed`, and there must be one at least; wrong: {wrong}"
            )
        strings = [name for name, values in self.variants.items() if isinstance(values, str)]
        if strings:
            raise ValueError(f"settings of {strings} must be lists of strings, not a string")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must be different numbers, one at least: {self.seeds}")
        if self.cpu_seconds is None and self.decisions is None:
            raise ValueError("a study needs a budget: cpu_seconds=..., decisions=... or both")
        for name in ("cpu_seconds", "decisions"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        rungs = list(self.halving)
        if rungs != sorted(set(rungs)) or not all(0 < rung < 1 for rung in rungs):
            raise ValueError(f"halving must be ascending fractions between 0 and 1: {rungs}")

    @property
    def rungs(self) -> tuple[float, ...]:
        """Fractions of the budget at which all runs wait for each other; the last is 1."""
        return (*self.halving, 1.0)

    def settings_of(self, variant: str) -> list[str]:
        """All settings of a variant, in their order, as `--set` takes them."""
        tasks = []
        if self.tasks:
            tasks = [f"tasks={list(self.tasks)!r}", f"tasks.action_repeat={self.action_repeat}"]
        return [*tasks, *self.evaluation.settings, *self.settings, *self.variants[variant]]


@dataclass(frozen=True)
class TaskScale:
    """What the curves need to know of a task.

    Attributes:
        name: Its name.
        action_repeat: Simulator steps per decision.
    """

    name: str
    action_repeat: int


def load_study(file: Path) -> Study:
    """Run a study file and take its `study`.

    Raises:
        UserError: If the file is missing, fails, or has no `study`.
    """
    if not file.is_file():
        raise UserError(f"no such study file: {file}")
    try:
        study = runpy.run_path(str(file)).get("study")
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    if not isinstance(study, Study):
        raise UserError(f"{file} has no `study = Study(...)` (from study_file import Study)")
    return study


def check_settings(base: Path, study: Study, variants: Sequence[str]) -> dict[str, Any]:
    """Build the config of every variant, so that a wrong setting is refused before hours of runs.

    Args:
        base: The experiment file.
        study: The study.
        variants: Names of the variants to look at.

    Returns:
        Of each variant the scales of its tasks.

    Raises:
        UserError: If a setting is unknown or out of range, or the base cannot be trained.
    """
    from rllib_ezm.cli.experiment_file import load_experiment_file, running_as_script
    from rllib_ezm.tasks.multitask import resolve_tasks

    scales = {}
    with running_as_script(base):
        file = load_experiment_file(base)
        for name in variants:
            config = file.overridden(study.settings_of(name)).config
            try:
                config.validate()
            except ValueError as error:
                raise UserError(f"variant {name}: {error}") from error
            tasks = resolve_tasks(config.env_config["tasks"])
            scales[name] = [TaskScale(task.name, task.action_repeat) for task in tasks]
    return scales
