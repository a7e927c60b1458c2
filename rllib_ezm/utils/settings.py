"""Settings that are declared once: name, type, default, range and meaning of each in one place.

A group of settings is a frozen dataclass of fields `name: type = setting(default, "Meaning.", ...)`
that derives from `SettingsGroup`. Types may be `bool`, `int`, `float`, `str`, `type`, `Literal`,
`FloatRange`, `Schedule`, a sequence of `Literal`, and unions of these with each other and None.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

FloatRange = tuple[float, float]
"""(low, high) with low < high."""

Schedule = Sequence[Sequence[float]]
"""[[env steps, value], ...], interpolated in between; RLlib checks its entries."""


class Limits(NamedTuple):
    """Bounds of a number; None where there is none."""

    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    at_most: float | None = None

    def hold(self, value: float) -> bool:
        """Whether a number is within them."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        low = self.above if self.at_least is None else self.at_least
        high = self.below if self.at_most is None else self.at_most
        if low is None and high is None:
            return ""
        if high is None:
            return f"> {low}" if self.at_least is None else f">= {low}"
        if low is None:
            return f"< {high}" if self.at_most is None else f"<= {high}"
        left = "(" if self.at_least is None else "["
        right = ")" if self.at_most is None else "]"
        return f"in {left}{low}, {high}{right}"


class Setting(NamedTuple):
    """One declared setting; `note` is said in its errors, after what is allowed."""

    name: str
    hint: Any
    default: Any
    sentence: str
    limits: Limits
    note: str


class Row(NamedTuple):
    """One setting as text."""

    name: str
    type: str
    default: str
    range: str
    sentence: str


def setting(default: T, sentence: str, *, note: str = "", **limits: float) -> T:
    """A field of a group of settings.

    Args:
        default: Its default.
        sentence: What it is.
        note: What else to say of its range, e.g. "0 switches it off".
        **limits: See `Limits`.
    """
    field: Any = dataclasses.field(
        default=default,
        metadata={"sentence": sentence, "limits": Limits(**limits), "note": note},
    )
    return field


class SettingsGroup:
    """Base of the groups, whose values are checked when one is made.

    Raises:
        ValueError: If a value is out of range.
    """

    def __post_init__(self) -> None:
        check(self)


def settings_of(group: type[Any]) -> Mapping[str, Setting]:
    """Name -> setting of a group, in the order of their declaration."""
    key: Any = group
    return _settings_of(key)


@functools.cache
def _settings_of(group: type[Any]) -> Mapping[str, Setting]:
    hints = get_type_hints(group)
    return types.MappingProxyType(
        {
            field.name: Setting(field.name, hints[field.name], field.default, **field.metadata)
            for field in dataclasses.fields(group)
            if "sentence" in field.metadata
        }
    )


def defaults(group: type[Any]) -> dict[str, Any]:
    """Name -> default of a group's settings."""
    return {name: declared.default for name, declared in settings_of(group).items()}


def check(group: Any) -> None:
    """Check every setting of a group's instance.

    Raises:
        ValueError: The first that has another type or is out of range: its name, its value, and
            what is allowed.
    """
    for name, declared in settings_of(type(group)).items():
        _check(name, getattr(group, name), declared.hint, declared.limits, declared.note)


def check_value(name: str, value: Any, hint: Any, **limits: float) -> None:
    """Check one value that belongs to no group, as `check` does.

    Raises:
        ValueError: If it has another type than `hint`, or is outside of `limits` (see `Limits`).
    """
    _check(name, value, hint, Limits(**limits), "")


def describe(group: type[Any]) -> list[Row]:
    """A group's settings as text, for reference."""
    rows = []
    for declared in settings_of(group).values():
        members = _members(declared.hint)
        not_none = [member for member in members if member is not type(None)]
        ranges = [_kind(member).range or str(declared.limits) for member in not_none]
        if declared.note:
            ranges.append(declared.note)
        type_name = " | ".join(_kind(member).name for member in members)
        about_range = "; ".join(text for text in ranges if text)
        rows.append(
            Row(declared.name, type_name, repr(declared.default), about_range, declared.sentence)
        )
    return rows


def _check(name: str, value: Any, hint: Any, limits: Limits, note: str) -> None:
    members = _members(hint)
    if any(_kind(member).accepts(value, limits) for member in members):
        return
    named = [_kind(member).words(limits) for member in members if member is not type(None)]
    or_none = ", or None" if type(None) in members else ""
    because = f"; {note}" if note else ""
    if _is_quoted_number(value) and any(member in (int, float) for member in members):
        because += "; a number is written without quotes"
    raise ValueError(f"{name}={value!r} must be {' or '.join(named)}{or_none}{because}.")


class _Kind(NamedTuple):
    """What a type accepts, and how it is called in errors and tables."""

    name: str
    accepts: Callable[[Any, Limits], bool]
    words: Callable[[Limits], str]
    range: str = ""


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _kind(hint: Any) -> _Kind:
    if hint in _KINDS:
        return _KINDS[hint]
    choices = get_args(hint)
    if get_origin(hint) is Literal:
        return _Kind(
            "str",
            lambda value, _: value in choices,
            lambda _: f"one of {choices}",
            ", ".join(f'"{choice}"' for choice in choices),
        )
    (items,) = choices
    allowed = get_args(items)
    return _Kind(
        "list[str]",
        lambda value, _: _is_list(value) and all(item in allowed for item in value),
        lambda _: f"a list of any of {allowed}",
        "any of " + ", ".join(f'"{choice}"' for choice in allowed),
    )


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_quoted_number(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", value) is not None


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_range(value: Any) -> bool:
    return (
        _is_list(value) and len(value) == 2 and all(map(_is_finite, value)) and value[0] < value[1]
    )


_KINDS: dict[Any, _Kind] = {
    type(None): _Kind("None", lambda value, _: value is None, lambda _: "None"),
    str: _Kind("str", lambda value, _: isinstance(value, str), lambda _: "a name"),
    type: _Kind("type", lambda value, _: isinstance(value, type), lambda _: "a class"),
    bool: _Kind("bool", lambda value, _: isinstance(value, bool), lambda _: "True or False"),
    int: _Kind(
        "int",
        lambda value, limits: _is_integer(value) and limits.hold(value),
        lambda limits: f"an integer {limits}".rstrip(),
    ),
    float: _Kind(
        "float",
        lambda value, limits: _is_finite(value) and limits.hold(value),
        lambda limits: f"a finite number {limits}".rstrip(),
    ),
    FloatRange: _Kind(
        "tuple[float, float]",
        lambda value, _: _is_range(value),
        lambda _: "(low, high), two finite numbers with low < high",
        "low < high",
    ),
    Schedule: _Kind(
        "schedule",
        lambda value, _: _is_list(value),
        lambda _: "a schedule [[0, 1e-4], [100000, 1e-5]]",
        "or [[env steps, value], ...]",
    ),
}
