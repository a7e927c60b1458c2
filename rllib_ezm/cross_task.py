"""Exploration with other tasks' policies: a training episode may begin with one of them.

What another task has learned (to stand up, say) is data that the own policy may be far from
finding. Cf. QMP, which shares behaviours in this way at every step (arXiv:2302.00671).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.annotations import override

from rllib_ezm.tasks.multitask import TaskSet

ACTING_TASK = "acting_task"
"""Batch column [B]: the task whose policy acts. Also, in an episode's `custom_data`, the other task
that acts at its beginning, until `HANDOVER_STEP`."""

HANDOVER_STEP = "handover_step"
"""Key of `custom_data`: the decision from which the episode's own policy acts."""

MEAN_BORROWED_STEPS = 100
"""Mean of the (geometric) number of decisions by the other task's policy."""


class CrossTaskExploration(ConnectorV2):
    """Env-to-module connector that adds the column `ACTING_TASK` while exploring.

    Only a task with the same observation and action dims lends its policy. Drawn with NumPy's
    global generator.

    Args:
        tasks: The task set.
        probability: Share of the training episodes that begin with another task's policy.
        task_key: Key of an episode's `custom_data` that holds its task id.
    """

    def __init__(self, tasks: TaskSet, probability: float, task_key: str) -> None:
        super().__init__()
        dims = list(zip(tasks.obs_dims, tasks.action_dims, strict=True))
        self._lenders = [
            [other for other in range(len(dims)) if other != task and dims[other] == dims[task]]
            for task in range(len(dims))
        ]
        self._probability, self._task_key = probability, task_key

    @override(ConnectorV2)
    def __call__(
        self,
        *,
        rl_module: Any,
        batch: dict[str, Any],
        episodes: list[SingleAgentEpisode],
        explore: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        if explore:
            for episode in episodes:
                task = np.int64(self._acting_task(episode))
                self.add_batch_item(batch, ACTING_TASK, task, episode)
        return batch

    def _acting_task(self, episode: SingleAgentEpisode) -> int:
        data = episode.custom_data
        if HANDOVER_STEP not in data:
            lenders = self._lenders[data[self._task_key]]
            borrow = lenders and np.random.random() < self._probability
            data[HANDOVER_STEP] = np.random.geometric(1 / MEAN_BORROWED_STEPS) if borrow else 0
            data[ACTING_TASK] = np.random.choice(lenders) if borrow else None
        own = data[self._task_key]
        return int(own if episode.t >= data[HANDOVER_STEP] else data[ACTING_TASK])
