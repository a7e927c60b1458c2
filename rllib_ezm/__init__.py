"""EfficientZero-Multitask (EZ-M, arXiv:2603.01452) as a plugin for Ray RLlib.

The layers `models`, `search`, `losses`, `replay` and `tasks` import without Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rllib_ezm.algorithm.config import EZMConfig
    from rllib_ezm.algorithm.ezm import EZM

__all__ = ["EZM", "EZMConfig"]
__version__ = "0.1.0"
_HOME = {"EZM": "rllib_ezm.algorithm.ezm", "EZMConfig": "rllib_ezm.algorithm.config"}


def __getattr__(name: str) -> Any:
    """Import EZM and EZMConfig, and with them Ray, on first use only."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
