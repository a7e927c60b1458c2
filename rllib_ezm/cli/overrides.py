"""`--set GROUP.NAME=VALUE`: settings of an experiment file, changed from the shell."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rllib_ezm.utils.errors import UserError

if TYPE_CHECKING:
    from ray.rllib.algorithms import AlgorithmConfig

EXAMPLE = "e.g. --set training.replay_ratio=1"
TASKS = "tasks"
OF_ALL_TASKS = (
    "envs_per_task",
    "num_env_processes",
    "termination",
    "max_consecutive_env_failures",
    "env_step_timeout_s",
)
"""Arguments of `EZMConfig.tasks` that are no option of a single task."""

WORD = re.compile(r"[A-Za-z][\w:./-]*")
"""What a shell leaves of a string in quotes: `--set training.policy_loss="distribution"`."""

LITERALS = ("True", "False", "None")


def override(config: AlgorithmConfig, settings: Sequence[str]) -> AlgorithmConfig:
    """A copy of a config with settings changed in their order, as its fluent setters do.

    Args:
        config: Of any algorithm of RLlib.
        settings: `GROUP.NAME=VALUE` each: a setter of the config, one of its arguments, a Python
            literal. `tasks=[...]` replaces the tasks; `tasks.NAME=VALUE` sets an option of all.

    Raises:
        UserError: If one is malformed, unknown, or refused by the setter. Ranges are checked where
            the config is validated.
    """
    changed: AlgorithmConfig = config.copy(copy_frozen=False)
    for text in settings:
        target, sign, value = text.partition("=")
        group, dot, name = target.strip().partition(".")
        if not sign or not (dot or group == TASKS):
            hint = _homes(changed, group) if sign else ""
            raise UserError(f"--set {text}: must be GROUP.NAME=VALUE, {EXAMPLE}{hint}")
        parsed = _parse(text, value.strip())
        try:
            if group == TASKS and hasattr(changed, TASKS):
                _set_tasks(changed, name, parsed)
            else:
                _check_name(changed, text, group, name)
                getattr(changed, group)(**{name: parsed})
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise UserError(f"--set {text}: {error}") from error
    return changed


def notes(before: AlgorithmConfig, after: AlgorithmConfig) -> list[str]:
    """What changed tasks have lost: options that the file gives to its own tasks."""
    old, new = (_action_repeats(config) for config in (before, after))
    if len(set(old)) != 1 or set(new) <= set(old):
        return []
    return [
        f"Note:        action_repeat is {', '.join(map(str, sorted(set(new))))} now (file: "
        f"{old[0]}); to keep it: --set tasks.action_repeat={old[0]}"
    ]


def _parse(text: str, value: str) -> Any:
    """A Python literal, or a word."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        if not WORD.fullmatch(value):
            raise UserError(
                f"--set {text}: {value!r} is not a Python literal (a number, a string in quotes, "
                "True, None, a list, ...)"
            ) from error
    near = {"null": "None"} | {literal.lower(): literal for literal in LITERALS}
    if value.lower() in near:
        raise UserError(f"--set {text}: write {near[value.lower()]}, as in Python")
    return value


def _set_tasks(config: Any, name: str, value: Any) -> None:
    from rllib_ezm.tasks.multitask import resolve_tasks
    from rllib_ezm.tasks.spec import resolve_task

    options = dict(config.env_config)
    if not name:
        tasks = [value] if isinstance(value, str) else value
        config.tasks(tasks)  # what it says of wrong tasks; the arguments beside them stay
        options[TASKS] = config.env_config[TASKS]
    elif name in OF_ALL_TASKS:
        options[name] = value
    else:
        options[TASKS] = [
            resolve_task(task, **{name: value}) for task in resolve_tasks(options[TASKS])
        ]
    config.env_config = options


def _groups(config: AlgorithmConfig) -> dict[str, set[str]]:
    """Setters of a config and the names that they take, those of its base classes included."""
    from ray.rllib.algorithms.algorithm_config import NotProvided

    from rllib_ezm.algorithm.setters import GROUPS

    groups: dict[str, set[str]] = {}
    for kind in type(config).__mro__:
        for group, method in vars(kind).items():
            if group.startswith("_") or not inspect.isfunction(method):
                continue
            parameters = list(inspect.signature(method).parameters.values())[1:]
            if group in GROUPS or any(p.default is NotProvided for p in parameters):
                names = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
                groups[group] = groups.get(group, set()) | names
    return groups


def _check_name(config: AlgorithmConfig, text: str, group: str, name: str) -> None:
    groups = _groups(config)
    if group not in groups:
        known: Iterable[str] = groups | ({TASKS: set()} if hasattr(config, TASKS) else {})
        near = difflib.get_close_matches(group, list(known), n=1)
        hint = f"; did you mean {near[0]}.{name}?" if near else _homes(config, name)
        raise UserError(
            f"--set {text}: {type(config).__name__} has no group {group!r}"
            f"{hint or '; its groups: ' + ', '.join(sorted(known))}"
        )
    if name not in groups[group]:
        near = difflib.get_close_matches(name, groups[group], n=3)
        hint = _homes(config, name)
        if near and not hint:
            hint = f"; did you mean {' or '.join(f'{group}.{other}' for other in near)}?"
        raise UserError(f"--set {text}: {group} has no setting {name!r}{hint}")


def _homes(config: AlgorithmConfig, name: str) -> str:
    """The groups that have a setting of this name, or one almost like it."""
    full = [f"{group}.{known}" for group, names in _groups(config).items() for known in names]
    homes = [path for path in full if path.endswith(f".{name}")]
    if not homes:
        names = {path.partition(".")[2] for path in full}
        near = set(difflib.get_close_matches(name, names, n=1))
        homes = [path for path in full if path.partition(".")[2] in near]
    return f"; did you mean {' or '.join(sorted(homes))}?" if homes else ""


def _action_repeats(config: Any) -> list[int]:
    from rllib_ezm.tasks.multitask import resolve_tasks

    if not hasattr(config, TASKS) or not isinstance(config.env_config, Mapping):
        return []  # another algorithm, or a sweep
    return [task.action_repeat for task in resolve_tasks(config.env_config[TASKS])]
