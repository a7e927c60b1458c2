"""The script that measures a GPU, tried at a tiny size where only torch and numpy are installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BARE = """
import runpy, sys

MISSING = ("ray", "gymnasium", "safetensors", "rich", "pyarrow", "mujoco")

class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"{name} is not installed on a bare machine")

sys.meta_path.insert(0, Bare())
sys.argv = ["gpu.py", "--dry", "--json", sys.argv[1]]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


@pytest.mark.slow
def test_every_part_of_it_runs_on_a_bare_machine(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(tmp_path / "gpu.json")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    figures = json.loads((tmp_path / "gpu.json").read_text())
    assert figures["agreement"]["same_action"] == 1.0
    assert figures["agreement"]["relative_gradient_error"] < 1e-4
    eager = figures["updates, hard, float32, eager"]
    assert eager["updates_per_second"] > 0
    assert eager["dispatches"] > 1000
    assert figures["searches, bfloat16"]["3_roots"]["searches_per_second"] > 0
