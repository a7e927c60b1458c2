"""The commands `rllib` and `rllib-ezm`; `run_example` trains the file that calls it."""

from __future__ import annotations

from rllib_ezm.cli.interruption import INTERRUPTED
from rllib_ezm.cli.main import run_example

__all__ = ["INTERRUPTED", "run_example"]
