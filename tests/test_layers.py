"""Who may import whom: the rooms of the package, and which of them do without Ray.

`docs/explanation/architecture.md` shows the same table. Imports under `TYPE_CHECKING` and inside
functions count like any other.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rllib_ezm

PACKAGE = Path(rllib_ezm.__file__).parent

MAY_IMPORT: dict[str, set[str]] = {
    "utils": set(),
    "models": {"utils"},
    "search": {"models", "utils"},
    "losses": {"models", "utils"},
    "replay": {"utils"},
    "tasks": {"utils"},
    "update": {"models", "search", "losses", "utils"},
    "policy": {"models", "search", "utils"},
    "probes": {"models", "losses", "update", "utils"},
    "execution": {"models", "search", "update", "replay", "tasks", "utils"},
    "algorithm": {
        "models",
        "search",
        "losses",
        "update",
        "policy",
        "replay",
        "tasks",
        "probes",
        "execution",
        "utils",
    },
    "baselines": {"algorithm", "probes", "tasks", "utils"},
    "report": {"tasks", "utils"},
    "cli": {"algorithm", "baselines", "execution", "policy", "replay", "report", "tasks", "utils"},
}
"""Room -> rooms that it may import."""

CIRCLES = {("algorithm/config.py", "algorithm/ezm.py")}
"""The one circle that RLlib's own algorithms have too: config <-> algorithm."""

WITHOUT_RAY = (
    "models",
    "search",
    "losses",
    "update",
    "policy",
    "replay",
    "tasks",
    "probes",
    "report",
)

IMPORT_ALL = """
import importlib, pkgutil, sys
for room in {rooms!r}:
    package = importlib.import_module("rllib_ezm." + room)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        loaded = [name for name in sys.modules if name == "ray" or name.startswith("ray.")]
        assert not loaded, (module.name, loaded[:3])
print(sum(name.startswith("rllib_ezm.") for name in sys.modules))
"""


def imported_modules(file: Path) -> Iterator[str]:
    """Dotted names of this package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "rllib_ezm" or node.module.startswith("rllib_ezm."):
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("rllib_ezm."))


def rooms() -> list[str]:
    return sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))


def test_every_room_is_in_the_table() -> None:
    assert rooms() == sorted(MAY_IMPORT)


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in sorted((PACKAGE / room).rglob("*.py"))
        for name in imported_modules(file)
        if name.partition(".")[2].partition(".")[0] not in {room, *MAY_IMPORT[room]}
    ]
    assert wrong == []


def test_the_rooms_are_floors() -> None:
    """No circle between rooms: each imports lower ones only, in the order of the table."""
    order = list(MAY_IMPORT)
    for room, below in MAY_IMPORT.items():
        assert all(order.index(other) < order.index(room) for other in below), room


def module_graph() -> dict[str, set[str]]:
    """File -> files of this package that it imports."""
    graph: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        targets = set()
        for name in imported_modules(file):
            path = PACKAGE.joinpath(*name.split(".")[1:])
            target = path.with_suffix(".py") if path.with_suffix(".py").is_file() else None
            if target is not None and target != file:
                targets.add(target.relative_to(PACKAGE).as_posix())
        graph[file.relative_to(PACKAGE).as_posix()] = targets
    return graph


def test_there_is_one_circle_of_modules() -> None:
    graph = module_graph()

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        queue = [start]
        while queue:
            for target in graph.get(queue.pop(), ()):
                if target not in found:
                    found.add(target)
                    queue.append(target)
        return found

    in_circles = {module for module in graph if module in reachable(module)}
    assert in_circles == {module for circle in CIRCLES for module in circle}


def test_rooms_below_rllib_do_without_ray() -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL.format(rooms=WITHOUT_RAY)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    # Every module of the rooms was imported, not just their packages.
    assert int(result.stdout.split()[-1]) > 40


def test_the_root_holds_the_public_face_only() -> None:
    assert sorted(p.name for p in PACKAGE.glob("*.py")) == ["__init__.py"]
