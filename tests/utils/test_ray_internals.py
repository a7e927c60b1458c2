"""Private names of Ray and RLlib stay in one module, and each of them still exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import rllib_ezm
from rllib_ezm.utils import ray_internals

PACKAGE = Path(rllib_ezm.__file__).parent
HOME = "rllib_ezm.utils.ray_internals"
TO_OVERRIDE = {"_forward_exploration", "_forward_inference", "_forward_train", "_forward"}
"""What RLlib's documentation asks authors of an RLModule to override."""


def modules() -> Iterator[ModuleType]:
    for info in pkgutil.walk_packages(rllib_ezm.__path__, "rllib_ezm."):
        if not info.name.endswith("__main__"):
            yield importlib.import_module(info.name)


def private_names(source: str) -> set[str]:
    """Attributes and methods with one leading underscore in Python source."""
    found = set(re.findall(r"(?:self|super\(\)|cls|\w+)\.(_[a-z]\w*)", source))
    return found | set(re.findall(r"def (_[a-z]\w*)", source))


def private_names_of_ray(kind: type) -> set[str]:
    """Those of the classes of Ray that a class derives from."""
    names: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.startswith("ray."):
            names |= {name for name in vars(base) if name.startswith("_")}
            names |= set(re.findall(r"self\.(_[a-z]\w*)", inspect.getsource(base)))
    return {name for name in names if not name.startswith("__")}


def test_classes_of_ours_touch_no_private_name_of_rays() -> None:
    wrong, checked = [], 0
    for module in modules():
        if module.__name__ == HOME:
            continue
        for name, kind in vars(module).items():
            if not inspect.isclass(kind) or kind.__module__ != module.__name__:
                continue
            theirs = private_names_of_ray(kind) - TO_OVERRIDE
            checked += bool(theirs)
            used = private_names(inspect.getsource(kind)) & theirs
            wrong += [f"{module.__name__}.{name}: {sorted(used)}"] if used else []
    assert wrong == []
    assert checked >= 8, "config, algorithm, learner, env runner, module, callbacks, ..."


def imports_of_private_names(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ray"):
            yield from (a.name for a in node.names if a.name.startswith("_"))
        if isinstance(node, ast.Attribute) and node.attr in ("_private", "_internal"):
            yield node.attr


def test_nothing_private_is_imported_from_ray() -> None:
    for file in PACKAGE.rglob("*.py"):
        if file.name != "ray_internals.py":
            assert list(imports_of_private_names(file)) == [], file


@pytest.mark.parametrize(
    "kind",
    [
        ray_internals.OpenAlgorithm,
        ray_internals.OpenConfig,
        ray_internals.OpenEnvRunner,
        ray_internals.OpenLearner,
        ray_internals.OpenTensorBoard,
    ],
)
def test_every_private_name_is_still_there(kind: type) -> None:
    """A release of Ray that renames one fails here, not in the middle of a run."""
    used = private_names(inspect.getsource(kind))
    assert used
    missing = used - private_names_of_ray(kind)
    assert missing == set()
