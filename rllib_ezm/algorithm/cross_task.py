"""Exploration with other tasks' policies: they act for a while in training episodes.

What another task has learned (to stand up, say) is data that the own policy may be far from
finding. Cf. QMP, which shares behaviors in this way at every step (arXiv:2302.00671).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.annotations import override

from rllib_ezm.algorithm.env_runner import TASK_ID
from rllib_ezm.tasks.multitask import TaskSet

ACTING_TASK = "acting_task"
"""Batch column [B], and key of an episode's `custom_data`: the task whose policy acts."""

NEXT_DRAW = "next_draw"
"""Key of an episode's `custom_data`: the decision at which the acting task is drawn anew."""

MEAN_STRETCH = 100
"""Mean of the (geometric) number of decisions from one draw to the next."""


class CrossTaskExploration(ConnectorV2):
    """Env-to-module connector that adds the column `ACTING_TASK` while exploring.

    Each episode is cut into stretches of `MEAN_STRETCH` decisions in the mean; the policy that acts
    in a stretch is another task's with `probability`, so that it meets the states in which the own
    policy may be stuck. Only a task with the same observation and action dims lends its policy.
    Drawn with NumPy's global generator.

    Args:
        tasks: The task set.
        probability: Share of the stretches in which another task's policy acts.
    """

    def __init__(self, tasks: TaskSet, probability: float) -> None:
        super().__init__()
        dims = list(zip(tasks.obs_dims, tasks.action_dims, strict=True))
        self._source_tasks = [
            [other for other in range(len(dims)) if other != task and dims[other] == dims[task]]
            for task in range(len(dims))
        ]
        self._probability = probability

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
        if episode.t >= data.get(NEXT_DRAW, 0):
            source_tasks = self._source_tasks[data[TASK_ID]]
            borrow = source_tasks and np.random.random() < self._probability
            data[ACTING_TASK] = np.random.choice(source_tasks) if borrow else data[TASK_ID]
            data[NEXT_DRAW] = episode.t + np.random.geometric(1 / MEAN_STRETCH)
        return int(data[ACTING_TASK])
