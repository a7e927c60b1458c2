from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, Literal

import numpy as np
import pytest

from rllib_ezm.utils.settings import (
    FloatRange,
    Limits,
    Row,
    Schedule,
    SettingsGroup,
    check_value,
    defaults,
    describe,
    setting,
    settings_of,
)

Fruit = Literal["apple", "pear"]


@dataclass(frozen=True, kw_only=True)
class Example(SettingsGroup):
    count: int = setting(3, "How many.", at_least=1)
    maybe: int | None = setting(None, "Perhaps as many.", at_least=0, note="0 means none")
    share: float = setting(0.5, "A part of the whole.", at_least=0, at_most=1)
    rate: float | Schedule = setting(0.1, "How fast.", above=0)
    switch: bool = setting(False, "On or off.")
    fruit: Fruit = setting("apple", "What grows.")
    basket: Sequence[Fruit] = setting(("pear",), "What is picked.")
    span: FloatRange = setting((0.0, 1.0), "From where to where.")


@dataclass(frozen=True)
class WithMore(Example):
    size: int


VALID = [
    {"count": 1},
    {"count": np.int64(7)},
    {"maybe": 0},
    {"share": 0},
    {"share": np.float32(1.0)},
    {"rate": [[0, 0.1], [10, 0.2]]},
    {"fruit": "pear"},
    {"basket": []},
    {"basket": ["apple", "pear"]},
    {"span": [-1, 2.5]},
]
INVALID = [
    ("count", 0, "must be an integer >= 1."),
    ("count", 2.0, "must be an integer >= 1."),
    ("count", True, "must be an integer >= 1."),
    ("count", None, "must be an integer >= 1."),
    ("maybe", -1, "must be an integer >= 0, or None; 0 means none."),
    ("maybe", "three", "must be an integer >= 0, or None; 0 means none."),
    (
        "maybe",
        "3",
        "must be an integer >= 0, or None; 0 means none; a number is written without quotes.",
    ),
    ("share", 1.1, "must be a finite number in [0, 1]."),
    ("share", math.nan, "must be a finite number in [0, 1]."),
    ("share", "1e-3", "must be a finite number in [0, 1]; a number is written without quotes."),
    ("share", True, "must be a finite number in [0, 1]."),
    ("rate", 0.0, "must be a finite number > 0 or a schedule [[0, 1e-4], [100000, 1e-5]]."),
    ("rate", math.inf, "must be a finite number > 0 or a schedule [[0, 1e-4], [100000, 1e-5]]."),
    ("switch", 1, "must be True or False."),
    ("fruit", "plum", "must be one of ('apple', 'pear')."),
    ("basket", "pear", "must be a list of any of ('apple', 'pear')."),
    ("basket", ("plum",), "must be a list of any of ('apple', 'pear')."),
    ("span", (1, 1), "must be (low, high), two finite numbers with low < high."),
    ("span", (0, math.inf), "must be (low, high), two finite numbers with low < high."),
    ("span", 3, "must be (low, high), two finite numbers with low < high."),
]


def test_the_defaults_are_those_declared() -> None:
    assert defaults(Example) == {
        "count": 3,
        "maybe": None,
        "share": 0.5,
        "rate": 0.1,
        "switch": False,
        "fruit": "apple",
        "basket": ("pear",),
        "span": (0.0, 1.0),
    }
    assert vars(Example()) == defaults(Example)


@pytest.mark.parametrize("change", VALID, ids=repr)
def test_valid_values_are_kept_as_they_are(change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    assert getattr(Example(**change), name) is value


@pytest.mark.parametrize(("name", "value", "says"), INVALID)
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, value: Any, says: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - compared below
        Example(**{name: value})
    assert str(error.value) == f"{name}={value!r} {says}"


def test_a_group_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Example().count = 4  # type: ignore[misc]


def test_a_group_may_have_fields_that_are_no_settings() -> None:
    assert WithMore(7, count=2).size == 7
    assert list(settings_of(WithMore)) == list(settings_of(Example))
    with pytest.raises(ValueError, match="count=0"):
        WithMore(7, count=0)


@pytest.mark.parametrize(
    ("limits", "text", "inside", "outside"),
    [
        (Limits(), "", -1e9, None),
        (Limits(at_least=0), ">= 0", 0, -1),
        (Limits(above=0), "> 0", 1, 0),
        (Limits(at_most=2), "<= 2", 2, 3),
        (Limits(below=2), "< 2", 1, 2),
        (Limits(at_least=0, below=1), "in [0, 1)", 0, 1),
        (Limits(above=0, at_most=1), "in (0, 1]", 1, 0),
    ],
)
def test_limits(limits: Limits, text: str, inside: float, outside: float | None) -> None:
    assert str(limits) == text
    assert limits.hold(inside)
    assert outside is None or not limits.hold(outside)


def test_a_value_of_no_group_is_checked_alike() -> None:
    check_value("copies", 2, int, at_least=1)
    with pytest.raises(ValueError, match="copies=0 must be an integer >= 1"):
        check_value("copies", 0, int, at_least=1)


def test_the_description_is_all_that_was_declared() -> None:
    assert describe(Example) == [
        Row("count", "int", "3", ">= 1", "How many."),
        Row("maybe", "int | None", "None", ">= 0; 0 means none", "Perhaps as many."),
        Row("share", "float", "0.5", "in [0, 1]", "A part of the whole."),
        Row("rate", "float | schedule", "0.1", "> 0; or [[env steps, value], ...]", "How fast."),
        Row("switch", "bool", "False", "", "On or off."),
        Row("fruit", "str", "'apple'", '"apple", "pear"', "What grows."),
        Row("basket", "list[str]", "('pear',)", 'any of "apple", "pear"', "What is picked."),
        Row("span", "tuple[float, float]", "(0.0, 1.0)", "low < high", "From where to where."),
    ]
