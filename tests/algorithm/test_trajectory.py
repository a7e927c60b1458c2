"""The seeded training of `d72cad0`, the commit before the package was divided into rooms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.trajectory import CASES, PINNED

RECORDED = Path(__file__).parent.parent / "helpers" / "trajectory.json"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same trajectory from a process whose arithmetic is pinned."""
    out = tmp_path_factory.mktemp("trajectory") / "trajectory.json"
    result = subprocess.run(
        [sys.executable, "-m", "helpers.trajectory", str(out)],
        env={**os.environ, **PINNED, "PYTHONPATH": os.pathsep.join(["tests", *sys.path])},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    recorded: dict[str, Any] = json.loads(out.read_text())
    return recorded


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, "training"])
def test_training_is_that_of_the_recorded_commit_bit_for_bit(
    ours: dict[str, Any], case: str
) -> None:
    recorded = json.loads(RECORDED.read_text())[case]
    assert recorded, "the record is empty"
    assert ours[case] == recorded
