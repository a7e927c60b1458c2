"""The two sizes at which speed is measured: the paper's network and that of `ezm_dmc.py`."""

from __future__ import annotations

import runpy
from pathlib import Path

from whole_update import HARD

from rllib_ezm import EZMConfig
from rllib_ezm.models import WorldModelSpec

FULL = HARD


def default_suite() -> EZMConfig:
    """The config of `tuned_examples/ezm_dmc.py`."""
    file = Path(__file__).parents[1] / "tuned_examples" / "ezm_dmc.py"
    config: EZMConfig = runpy.run_path(str(file))["config"]
    return config


def default_suite_model() -> WorldModelSpec:
    """The networks of `tuned_examples/ezm_dmc.py`."""
    return model_of(default_suite())


def model_of(config: EZMConfig) -> WorldModelSpec:
    """The networks of a config."""
    tasks = config.get_task_set()
    return WorldModelSpec(
        obs_dim=tasks.obs_dim,
        action_dim=tasks.action_dim,
        num_tasks=tasks.num_tasks,
        **config.model_config["world_model"],
    )
