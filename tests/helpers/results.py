"""Looks through the nested dicts that `Algorithm.train` returns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np


def numbers(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every number of a nested result with its path."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from numbers(value, (*path, str(key)))
    elif isinstance(tree, (int, float, np.number)):
        yield path, float(tree)


def nan_paths(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Where a result is NaN, apart from what RLlib itself has so.

    It reports the parameter counts once, and means over finished episodes only where there are any.
    """
    own = {key: value for key, value in result.items() if key != "env_runners"}
    nan = [path for path, value in numbers(own) if math.isnan(value)]
    return [path for path in nan if not path[-1].endswith("trainable_parameters")]
