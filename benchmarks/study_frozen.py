"""The settings that were chosen on the development tasks, see docs/results/protocol.md."""

from __future__ import annotations

FROZEN: tuple[str, ...] = ()
"""As settings of `--set`, beside those of ezm_dmc.py. After its first run it is not changed."""
