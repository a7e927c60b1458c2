"""Trials that differ in nothing but the seed are one variant."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rllib_ezm.report.runs import Curve, TaskInfo, Trial
from rllib_ezm.utils.errors import UserError

EXPERIMENT = "experiment"
NUM_TASKS = "num_tasks"
VARIANT = "variant"
"""Field in which `rllib_ezm.utils.sweep` writes the name of a joint setting."""
UNSET = "unset"

# What `rllib train file` or a user appends to the name of an experiment that is one of several.
_SUFFIXES = re.compile(r"(_seed\d+|_\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2})+$")


@dataclass(frozen=True)
class Variant:
    """The runs of one setting.

    Attributes:
        name: Unique name.
        trials: Its trials.
    """

    name: str
    trials: Sequence[Trial]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of its tasks; trials may cover one each."""
        return tuple(dict.fromkeys(task for trial in self.trials for task in trial.curves))

    def info(self, task: str) -> TaskInfo:
        """The constants of a task."""
        return next(trial.tasks[task] for trial in self.trials if task in trial.tasks)

    def curves(self, task: str) -> list[Curve]:
        """The task's curves, one per run."""
        return [trial.curves[task] for trial in self.trials if task in trial.curves]

    def differing_fields(self) -> dict[str, list[str]]:
        """Config fields other than the seed that its trials disagree on, with their values."""
        return _differing([trial.config for trial in self.trials])


def group_trials(trials: Sequence[Trial], fields: Sequence[str] = ()) -> list[Variant]:
    """Group trials into variants.

    By default, experiments whose names differ in a `_seedN` or time suffix belong together, and
    the fields that differ between trials inside one experiment (Tune's grid) split them. The joint
    settings of `rllib_ezm.utils.sweep` have their own names.

    Args:
        trials: The trials.
        fields: Group by these config fields instead ("a/b" for a nested one); also "experiment"
            (its name without suffix) and "num_tasks".

    Raises:
        UserError: If no trial has a field, or a variant has a seed twice for a task.
    """
    if fields:
        _check_fields(trials, fields)
        names = [", ".join(_setting(trial, field) for field in fields) for trial in trials]
    else:
        names = _default_names(trials)
    groups: dict[str, list[Trial]] = {}
    for trial, name in zip(trials, names, strict=True):
        groups.setdefault(name, []).append(trial)
    variants = [Variant(name, members) for name, members in groups.items()]
    for variant in variants:
        _check_seeds(variant)
    return variants


def base_name(experiment: str) -> str:
    """An experiment's name without the suffix of a seed or a time."""
    return _SUFFIXES.sub("", experiment) or experiment


def _default_names(trials: Sequence[Trial]) -> list[str]:
    families: dict[str, list[Trial]] = {}
    for trial in trials:
        families.setdefault(base_name(trial.experiment), []).append(trial)
    grids = {base: _grid(members) for base, members in families.items()}
    names = []
    for trial in trials:
        base = base_name(trial.experiment)
        usual = grids[base]
        special = [field for field in usual if trial.config.get(field, UNSET) != usual[field]]
        named = [readable(trial.config[VARIANT])] if VARIANT in trial.config else []
        label = ", ".join([*named, *(_setting(trial, field) for field in special)])
        if not usual and not named:
            names.append(base)
        elif len(families) == 1:
            names.append(label or "base")
        else:
            names.append(f"{base}: {label or 'base'}")
    return names


def _grid(trials: Sequence[Trial]) -> dict[str, str | None]:
    """Fields that differ inside one experiment and joint setting, with the usual value of each.

    The value that goes without saying is the one most settings share, as in a sweep of single
    changes to one setting; None where there is no such value, as in a product of grids.
    """
    experiments: dict[tuple[str, str | None], list[Trial]] = {}
    for trial in trials:
        key = (trial.experiment, trial.config.get(VARIANT))
        experiments.setdefault(key, []).append(trial)
    fields = dict.fromkeys(
        field
        for members in experiments.values()
        for field in _differing([trial.config for trial in members])
    )
    settings = {tuple(trial.config.get(field, UNSET) for field in fields) for trial in trials}
    usual: dict[str, str | None] = {}
    for index, field in enumerate(fields):
        ranked = Counter(setting[index] for setting in settings).most_common(2)
        tied = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
        usual[field] = None if tied else ranked[0][0]
    return usual


def _differing(configs: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    fields = dict.fromkeys(field for config in configs for field in config if field != "seed")
    values = {
        field: list(dict.fromkeys(config.get(field, UNSET) for config in configs))
        for field in fields
    }
    return {field: seen for field, seen in values.items() if len(seen) > 1}


def _setting(trial: Trial, field: str) -> str:
    """The field and its value as part of a variant's name."""
    if field == EXPERIMENT:
        return base_name(trial.experiment)
    if field == NUM_TASKS:
        return f"{len(trial.tasks)} task{'s' if len(trial.tasks) != 1 else ''}"
    return f"{field.rpartition('/')[2]}={readable(trial.config.get(field, UNSET))}"


def readable(value: str) -> str:
    """A value of `Trial.config` for a name: without quotes."""
    if value == UNSET:
        return UNSET
    parsed = json.loads(value)
    if isinstance(parsed, list):
        return "[" + ",".join(str(item) for item in parsed) + "]"
    return str(parsed)


def _check_fields(trials: Sequence[Trial], fields: Sequence[str]) -> None:
    known = {EXPERIMENT, NUM_TASKS, *(field for trial in trials for field in trial.config)}
    for field in fields:
        if field not in known:
            near = difflib.get_close_matches(field, sorted(known), n=3)
            hint = f"; did you mean {', '.join(near)}" if near else ""
            raise UserError(f"--group-by: no trial has a config field {field!r}{hint}")


def _check_seeds(variant: Variant) -> None:
    """A seed that counts twice would narrow the intervals without new evidence."""
    seen: dict[tuple[str, int], Trial] = {}
    for trial in variant.trials:
        if trial.seed is None:
            continue
        for task in trial.curves:
            other = seen.setdefault((task, trial.seed), trial)
            if other is not trial:
                raise UserError(
                    f"variant {variant.name!r} has seed {trial.seed} of {task} twice: "
                    f"{other.experiment}/{other.name} and {trial.experiment}/{trial.name}; name "
                    "fewer directories, or tell them apart with --group-by FIELD"
                )
