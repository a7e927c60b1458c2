"""How an algorithm starts its env runners, collects, and takes in those that were restarted."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.annotations import override

from rllib_ezm.execution.protocols import Collected, RestartableEnvRunner
from rllib_ezm.tasks.failure import EnvironmentFailedError
from rllib_ezm.tasks.statistics import TaskStatistics
from rllib_ezm.tasks.watchdog import Death
from rllib_ezm.utils.ray_internals import OpenAlgorithm
from rllib_ezm.utils.seeding import derived_seed

logger = logging.getLogger(__name__)

DRIVER, LEARNER, RUNNER, EVALUATION, RESTART, TARGETS = range(6)
"""What a seed of the run is for, see `derived_seed`."""


class RecoverableAlgorithm(OpenAlgorithm):
    """An RLlib algorithm whose env runners may die at any time.

    Ray restarts a dead env runner; meanwhile training goes on with the others. The new process gets
    the learner's weights, the env steps of each task so far for the balance of the next ones, and
    seeds that no runner had before. RLlib alone would have it play the first episodes of its
    configured seed again.
    """

    @override(Algorithm)
    def setup(self, config: AlgorithmConfig) -> None:
        super().setup(config)
        settings = self.config
        self.task_statistics = TaskStatistics(
            settings.get_task_set().specs, settings.metrics_num_episodes_for_smoothing
        )
        self.num_env_runner_restarts = 0
        self._run_seed = int(np.random.SeedSequence(settings.seed).generate_state(1, np.uint32)[0])
        self._num_checkpoints = 0
        self.consecutive_deaths: Counter[int] = Counter()
        self._restarts: Counter[int] = Counter()
        self._restarts_without_progress = 0
        self._without_env_runners_since: float | None = None
        self.env_runner_group.foreach_env_runner(mark_started)

    @property
    def num_env_steps(self) -> int:
        """Decisions collected so far, summed over the tasks."""
        return int(self.task_statistics.env_steps.sum())

    def collect(self) -> list[Collected]:
        """One fragment of every env runner that is there."""
        group = self.env_runner_group
        asked = set(group.healthy_worker_ids())
        collected: list[Collected] = group.foreach_env_runner(
            lambda runner: runner.collect(),
            local_env_runner=group.num_remote_env_runners() == 0,
            timeout_seconds=self.config.sample_timeout_s,
        )
        answered = {part.worker_index for part in collected}
        if late := sorted(asked.intersection(group.healthy_worker_ids()) - answered):
            logger.warning(
                "Env runners %s have not answered within sample_timeout_s=%s; what they collected "
                "is lost. Raise it in .env_runners(...).",
                late,
                self.config.sample_timeout_s,
            )
        return collected

    def check_env_runners(self) -> None:
        """Whether anybody can collect, now or after a restart.

        Raises:
            RuntimeError: All env runners are lost, and RLlib's settings let none come back.
        """
        group, config = self.env_runner_group, self.config
        if group.num_remote_env_runners() == 0 or group.num_healthy_remote_workers() > 0:
            self._without_env_runners_since = None
            return
        now = time.monotonic()
        since = self._without_env_runners_since = self._without_env_runners_since or now
        limit = config.max_num_env_runner_restarts
        if not config.restart_failed_env_runners:
            cause = "restart_failed_env_runners=False"
        elif limit >= 0 and all(
            self._restarts[index] >= limit for index in range(1, group.num_remote_env_runners() + 1)
        ):
            cause = f"max_num_env_runner_restarts={limit}"
        elif now - since > config.env_runner_restore_timeout_s:
            cause = f"env_runner_restore_timeout_s={config.env_runner_restore_timeout_s}"
        else:
            return
        raise RuntimeError(
            f"No env runner is left ({cause} of .fault_tolerance(...)). The log says what they "
            "died of."
        )

    def unpack(self, collected: Sequence[Collected]) -> tuple[list[SingleAgentEpisode], list[Any]]:
        """Chunks of episodes and RLlib's metrics; starts the runners that Ray has restarted.

        Raises:
            EnvironmentFailedError: A task's environments failed too often in a row.
            RuntimeError: Env runners were lost too often in a row.
        """
        for part in collected:
            if part.failure is not None:
                raise part.failure
        waiting = [part.worker_index for part in collected if part.episodes is None]
        if waiting:
            self._start_restarted(self.env_runner_group, waiting)
            self.report_recreated(self.env_runner_group, waiting)
        if len(waiting) < len(collected):
            self._restarts_without_progress = 0
        episodes = [episode for part in collected for episode in part.episodes or ()]
        return episodes, [part.metrics for part in collected if part.episodes is not None]

    @override(Algorithm)
    def restore_env_runners(self, env_runner_group: EnvRunnerGroup) -> list[int]:
        restored: list[int] = super().restore_env_runners(env_runner_group)
        if restored:
            self._start_restarted(env_runner_group, restored)
        return restored

    def _start_restarted(self, group: EnvRunnerGroup, worker_ids: list[int]) -> None:
        self.num_env_runner_restarts += len(worker_ids)
        logger.warning("Env runners %s were restarted and go on with new seeds.", worker_ids)
        seed = derived_seed(
            self._run_seed, self._num_checkpoints, RESTART, self.num_env_runner_restarts
        )
        for death in self.start_runners(group, seed, worker_ids):
            if death is not None:
                self._count_death(death)
        if group is self.env_runner_group:
            self._restarts.update(worker_ids)
        self._restarts_without_progress += len(worker_ids)
        tolerance = self.config.num_consecutive_env_runner_failures_tolerance
        if self._restarts_without_progress > tolerance:
            raise RuntimeError(
                f"Env runners were lost {self._restarts_without_progress} times without anything "
                f"collected in between (num_consecutive_env_runner_failures_tolerance={tolerance} "
                "of .fault_tolerance(...)). The log says what they died of."
            )

    def _count_death(self, death: Death) -> None:
        """An environment took its process along; too often in a row is an error.

        Raises:
            EnvironmentFailedError: Names the task.
        """
        options = self.config.env_config
        limit = options["max_consecutive_env_failures"]
        self.task_statistics.env_failures[death.task_id] += 1
        self.consecutive_deaths[death.task_id] += 1
        num_consecutive = self.consecutive_deaths[death.task_id]
        name = self.task_statistics.specs[death.task_id].name
        text = death.describe(name, options.get("env_step_timeout_s"))
        if num_consecutive >= limit:
            raise EnvironmentFailedError(
                f"{text}; env runners that it ended in a row: {num_consecutive} "
                f"(max_consecutive_env_failures={limit} of .tasks(...)). Fix the environment, or "
                "raise that limit."
            )
        logger.warning(
            "%s. Its env runner was replaced, what that had not delivered is lost; such ends in a "
            "row: %d, training ends at %d.",
            text,
            num_consecutive,
            limit,
        )

    def start_runners(
        self, group: EnvRunnerGroup, seed: int, worker_ids: list[int] | None = None
    ) -> list[Death | None]:
        """New episodes, new seeds and the learner's weights, whatever weights they had.

        Args:
            group: The env runners, for training or for evaluation.
            seed: Each gets its own seed derived from this one.
            worker_ids: Only these remote ones; None: all.

        Returns:
            What the processes before them died of, where that was an environment.
        """
        state = self.learner_group.get_state(
            components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
        )[COMPONENT_LEARNER]
        env_steps = self.task_statistics.env_steps.copy()
        role = RUNNER if group is self.env_runner_group else EVALUATION

        def start(runner: RestartableEnvRunner) -> Death | None:
            runner.reset_and_reseed(derived_seed(seed, role, runner.worker_index or 0), env_steps)
            runner.set_state(state)
            return runner.take_death()

        deaths: list[Death | None] = group.foreach_env_runner(
            start, local_env_runner=worker_ids is None, remote_worker_ids=worker_ids
        )
        return deaths


def mark_started(runner: RestartableEnvRunner) -> None:
    """This env runner may collect, with its configured seeds."""
    runner.started = True
