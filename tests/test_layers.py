"""The maths imports without Ray, so that it can be read, tested and reused without it."""

from __future__ import annotations

import subprocess
import sys

LAYERS = ("models", "search", "losses", "replay", "tasks", "reanalyze", "report", "probes")

SCRIPT = """
import importlib, pkgutil, sys
for layer in {layers!r}:
    package = importlib.import_module("rllib_ezm." + layer)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        loaded = [name for name in sys.modules if name == "ray" or name.startswith("ray.")]
        assert not loaded, (module.name, loaded[:3])
print(sum(name.startswith("rllib_ezm.") for name in sys.modules))
"""


def test_no_layer_below_rllib_imports_ray():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(layers=LAYERS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    # Every module of the layers was imported, not just their packages.
    assert int(result.stdout.split()[-1]) > 25
