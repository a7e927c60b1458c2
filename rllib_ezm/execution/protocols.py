"""What this room asks of the algorithm and of its env runners, which live one floor above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_ezm.execution.learner_thread import Batch, Update
from rllib_ezm.tasks.failure import EnvironmentFailedError
from rllib_ezm.tasks.watchdog import Death


class Collected(NamedTuple):
    """What an env runner collected.

    Attributes:
        worker_index: Of the env runner; 0 is the local one.
        episodes: Chunks of episodes; None from an env runner that waits to be started.
        metrics: RLlib's metrics of the env runner.
        failure: Why the env runner cannot go on, if so.
    """

    worker_index: int
    episodes: list[SingleAgentEpisode] | None = None
    metrics: Any = None
    failure: EnvironmentFailedError | None = None


class RestartableEnvRunner(Protocol):
    """An env runner whose process Ray may restart at any time."""

    worker_index: int | None
    started: bool

    def collect(self) -> Collected:
        """A fragment from every environment slot."""
        ...

    def reset_and_reseed(self, seed: int, env_steps: np.ndarray) -> None:
        """Begin new episodes with new seeds; `env_steps` of each task so far [T]."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over weights."""
        ...

    def take_death(self) -> Death | None:
        """What the process died of that this one replaces, once, if that was an environment."""
        ...


class Trainer(Protocol):
    """An algorithm that a pipeline drives; all calls but `update_learners` in its own thread."""

    config: Any
    env_runner_group: Any
    learner_group: Any

    @property
    def num_env_steps(self) -> int:
        """Env steps stored so far."""
        ...

    @property
    def num_updates(self) -> int:
        """Updates finished so far."""
        ...

    @property
    def num_updates_due(self) -> int:
        """Updates that the replay ratio allows by now."""
        ...

    def store_episodes(self, collected: Sequence[Collected]) -> None:
        """Store and count what env runners have collected."""
        ...

    def start_learning_if_ready(self) -> None:
        """Start learning once enough env steps are stored."""
        ...

    def sample_batch(self) -> Batch:
        """A batch for all learners."""
        ...

    def update_learners(self, batch: Batch, env_steps: int) -> list[Any]:
        """One update; RLlib's results, one per learner. Called in the learners' thread."""
        ...

    def store_targets(self, batch: Batch, targets: np.ndarray, searched_at: int) -> None:
        """Write back what was searched anew in a batch; `targets` as of `stored_targets`."""
        ...

    def finish_update(self, update: Update) -> None:
        """Count an update, log its results, and store its priorities."""
        ...
