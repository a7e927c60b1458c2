"""How the fluent setters of `EZMConfig` derive from the groups of settings."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import textwrap
import warnings
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from ray.rllib.algorithms.algorithm_config import NotProvided

from rllib_ezm.execution.settings import ExecutionSettings
from rllib_ezm.models.settings import WorldModelSettings
from rllib_ezm.replay.settings import ReplaySettings
from rllib_ezm.search.settings import PlanningSettings
from rllib_ezm.update.settings import TrainingSettings
from rllib_ezm.utils.settings import Row, describe

P = ParamSpec("P")
ConfigT = TypeVar("ConfigT")

GROUPS: dict[str, type[Any]] = {
    "training": TrainingSettings,
    "world_model": WorldModelSettings,
    "search": PlanningSettings,
    "replay": ReplaySettings,
    "asynchrony": ExecutionSettings,
}
"""Setter of `EZMConfig` -> the group that it sets."""

RENAMED = {"weights_on_the_wire": "weight_transfer_dtype"}
"""Old name of a setting -> its name."""

RENAMED_VALUES = {"value_reduction": {"min2": "random_pair"}}
"""Setting -> old name of a value -> its name."""

PASSED_ON: Any = NotProvided


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingArguments(TrainingSettings):
    """What `EZMConfig.training` takes: the group, and RLlib's own arguments."""

    grad_clip_by: str = PASSED_ON
    train_batch_size: int = PASSED_ON
    num_epochs: int = PASSED_ON
    minibatch_size: int | None = PASSED_ON
    shuffle_batch_per_epoch: bool = PASSED_ON
    model: dict[str, Any] = PASSED_ON
    optimizer: dict[str, Any] = PASSED_ON


def sets(
    group: Callable[P, Any],
) -> Callable[[Callable[..., ConfigT]], Callable[Concatenate[ConfigT, P], ConfigT]]:
    """Give a method the typed arguments of a group, and the description of each.

    The arguments are handed to the method by name; which names are right is for it to check.
    Values are not checked, so that they may be searches of Tune.
    """
    kind: Any = group
    signature = inspect.signature(group)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p.name for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]

    def decorate(method: Callable[..., ConfigT]) -> Callable[Concatenate[ConfigT, P], ConfigT]:
        @functools.wraps(method)
        def setter(config: Any, *args: Any, **kwargs: Any) -> ConfigT:
            if len(args) > len(positional):
                raise TypeError(
                    f"{method.__name__}() takes {len(positional)} arguments by position: name the "
                    "others"
                )
            given = dict(zip(positional, args, strict=False))
            if twice := given.keys() & kwargs.keys():
                raise TypeError(f"{method.__name__}() got {sorted(twice)} twice")
            return method(config, **given, **kwargs)

        described: Any = setter
        described.__signature__ = signature.replace(
            parameters=[own, *signature.parameters.values()], return_annotation="EZMConfig"
        )
        described.__doc__ = _docstring(method.__doc__ or "", describe(kind))
        return described

    return decorate


def current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a setter with renamed settings under their names; each of them warns."""
    for old in RENAMED.keys() & values.keys():
        warn_renamed(old, stacklevel=6)
    return {RENAMED.get(name, name): value for name, value in values.items()}


def warn_renamed(old: str, stacklevel: int) -> None:
    """Say which name a setting has now."""
    warnings.warn(
        f"{old} is now {RENAMED[old]}; the old name goes with the next release.",
        DeprecationWarning,
        stacklevel=stacklevel,
    )


def current_value(setting: str, value: Any) -> Any:
    """The value of a setting under its name of today, also that of an older checkpoint."""
    return RENAMED_VALUES.get(setting, {}).get(value, value) if isinstance(value, str) else value


def warn_renamed_value(setting: str, value: Any) -> None:
    """Say which name a value has now, if it has another one."""
    current = current_value(setting, value)
    if current is not value:
        warnings.warn(
            f"{setting}={value!r} is now {current!r}; the old name goes with the next release.",
            DeprecationWarning,
            stacklevel=3,
        )


def renamed(old: str) -> Any:
    """A property that reads and writes a setting under its old name, and warns."""

    def read(config: Any) -> Any:
        warn_renamed(old, stacklevel=3)
        return getattr(config, RENAMED[old])

    def write(config: Any, value: Any) -> None:
        warn_renamed(old, stacklevel=5)
        setattr(config, RENAMED[old], value)

    return property(read, write, doc=f"Deprecated: `{RENAMED[old]}`.")


def _docstring(text: str, rows: list[Row]) -> str:
    lines = [inspect.cleandoc(text), "", "Args:"]
    for row in rows:
        about = "; ".join(filter(None, (row.type, f"default {row.default}", row.range)))
        entry = f"{row.name}: {row.sentence} [{about}]"
        lines += textwrap.wrap(
            entry, 92, initial_indent=" " * 4, subsequent_indent=" " * 8, break_on_hyphens=False
        )
    return "\n".join(lines)
