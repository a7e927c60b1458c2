"""EfficientZero-Multitask (EZ-M, arXiv:2603.01452) as a plugin for Ray RLlib.

The public names below are imported on first use, so that the rooms without Ray (`models`, `search`,
`losses`, `update`, `replay`, `tasks`) can be used without it.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from rllib_ezm.utils.importing import LIBRARY_FIRST, standard_library_first

if TYPE_CHECKING:
    from rllib_ezm.algorithm.callbacks import GradientSimilarity, ModelErrorProbe
    from rllib_ezm.algorithm.config import EZMConfig
    from rllib_ezm.algorithm.ezm import EZM
    from rllib_ezm.policy.load import load_policy
    from rllib_ezm.tasks.spec import register_task
    from rllib_ezm.utils.sweep import sweep

__all__ = [
    "EZM",
    "EZMConfig",
    "GradientSimilarity",
    "ModelErrorProbe",
    "load_policy",
    "register_task",
    "sweep",
]
__version__ = "0.2.0"

_HOME = {
    "EZM": "rllib_ezm.algorithm.ezm",
    "EZMConfig": "rllib_ezm.algorithm.config",
    "GradientSimilarity": "rllib_ezm.algorithm.callbacks",
    "ModelErrorProbe": "rllib_ezm.algorithm.callbacks",
    "load_policy": "rllib_ezm.policy.load",
    "register_task": "rllib_ezm.tasks",
    "sweep": "rllib_ezm.utils.sweep",
}

if LIBRARY_FIRST in os.environ:  # in a worker of `rllib train file`
    standard_library_first()


def __getattr__(name: str) -> Any:
    """Import a public name, and what it needs, on first use."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
