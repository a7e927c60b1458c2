"""RLlib's own algorithms on EZ-M's tasks: the same padding, env runner and evaluation."""

from __future__ import annotations

from rllib_ezm.baselines.multi_task import (
    HeadPerTask,
    MultiTaskDreamerV3,
    WithTaskId,
    multi_head,
    on_tasks,
)

__all__ = ["HeadPerTask", "MultiTaskDreamerV3", "WithTaskId", "multi_head", "on_tasks"]
