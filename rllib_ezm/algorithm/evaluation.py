"""Evaluation: the same number of full episodes of every task, without exploration."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_RETURN_MEAN,
    EVALUATION_RESULTS,
    NUM_EPISODES,
)

from rllib_ezm.algorithm.env_runner import (
    EvaluationTimeoutError,
    MultiTaskEnvRunner,
    Played,
    PlayedEpisode,
    PlayProgress,
)
from rllib_ezm.algorithm.evaluation_report import EvaluationReport, TaskResult
from rllib_ezm.tasks.failure import EnvironmentFailedError
from rllib_ezm.tasks.multitask import resolve_tasks
from rllib_ezm.tasks.protocol import protocol_name
from rllib_ezm.tasks.spec import TaskSpec

logger = logging.getLogger(__name__)

PLAY = "play"

Answer = Played | EnvironmentFailedError | EvaluationTimeoutError
"""What an env runner played, or why it has none: raised there, RLlib would only restart it."""


@runtime_checkable
class PlaysEpisodes(Protocol):
    """An algorithm that has its own way to wait for the episodes of an evaluation."""

    def play_episodes(self, env_runner_group: EnvRunnerGroup) -> list[Answer]:
        """The episodes of each env runner that was not lost."""
        ...


def evaluate_per_task(
    algorithm: Algorithm, env_runner_group: EnvRunnerGroup
) -> tuple[dict[str, Any], int, int]:
    """RLlib's `custom_evaluation_function`: `evaluation_duration` episodes of every task.

    Logs under `evaluation/`: per task `episode_return_mean`, `normalized_score` and its
    `info_metrics`, the means of the first two over the tasks, the constants of each task that
    `rllib-ezm report` needs, and, under `env_runners/`, what callbacks logged. Works for every
    algorithm that collects with `MultiTaskEnvRunner`; asynchronous EZM goes on training beside env
    runners of the evaluation's own. Where an env runner was lost on the way or took longer than
    `evaluation_sample_timeout_s`, the evaluation is void and nothing is logged.

    Raises:
        EnvironmentFailedError: A task's environments failed too often in a row.

    Returns:
        An empty dict (RLlib reads the logged metrics), env steps, agent steps.
    """
    play = algorithm.play_episodes if isinstance(algorithm, PlaysEpisodes) else play_and_wait
    answers = play(env_runner_group)
    if len(answers) < max(env_runner_group.num_remote_env_runners(), 1):
        logger.warning("An env runner was lost in this evaluation, which does not count.")
        return {}, 0, 0
    parts: list[Played] = []
    for answer in answers:
        if isinstance(answer, EnvironmentFailedError):
            raise answer
        if isinstance(answer, EvaluationTimeoutError):
            logger.warning("%s", answer)
            return {}, 0, 0
        parts.append(answer)
    played = [episode for part in parts for episode in part.episodes]
    options = evaluation_config_of(algorithm).env_config
    specs = resolve_tasks(options["tasks"])
    report = to_report(specs, played, protocol_of(options))
    logged = [part.metrics for part in parts if part.metrics]
    if logged:
        algorithm.metrics.aggregate(logged, key=(EVALUATION_RESULTS, ENV_RUNNER_RESULTS))
    log = algorithm.metrics.log_value
    for spec, result in zip(specs, report.tasks, strict=True):
        key = (EVALUATION_RESULTS, "tasks", result.task)
        log((*key, "episode_return_mean"), result.return_mean, reduce="item")
        log((*key, "normalized_score"), result.normalized_score_mean, reduce="item")
        log((*key, "episodes"), result.episodes, reduce="item")
        log((*key, "physics_errors"), result.physics_errors, reduce="item")
        log((*key, "env_failures"), result.env_failures, reduce="item")
        for name, mean in result.info_means.items():
            log((*key, "info", name), mean, reduce="item")
        for constant in ("random_score", "success_score", "action_repeat"):
            log((*key, constant), getattr(spec, constant), reduce="item")
    log((EVALUATION_RESULTS, "normalized_score_mean"), report.normalized_score_mean, reduce="item")
    log((EVALUATION_RESULTS, "normalized_score_iqm"), report.normalized_score_iqm, reduce="item")
    mean_return = float(np.mean([result.return_mean for result in report.tasks]))
    log((EVALUATION_RESULTS, ENV_RUNNER_RESULTS, EPISODE_RETURN_MEAN), mean_return, reduce="item")
    log((EVALUATION_RESULTS, ENV_RUNNER_RESULTS, NUM_EPISODES), len(played), reduce="item")
    steps = sum(episode.length for episode in played)
    return {}, steps, steps


def _play(
    runner: MultiTaskEnvRunner, on_progress: Callable[[PlayProgress], None] | None = None
) -> Answer:
    try:
        return runner.play(
            timeout_s=runner.config.evaluation_sample_timeout_s, on_progress=on_progress
        )
    except (EnvironmentFailedError, EvaluationTimeoutError) as error:
        return error


def play_and_wait(
    group: EnvRunnerGroup, on_progress: Callable[[PlayProgress], None] | None = None
) -> list[Answer]:
    """The episodes of each env runner that was not lost.

    Args:
        group: Env runners of the evaluation.
        on_progress: Called now and then by a local env runner; remote ones do not tell.
    """
    local = group.num_remote_env_runners() == 0
    play = functools.partial(_play, on_progress=on_progress) if local else _play
    played: list[Answer] = group.foreach_env_runner(play, local_env_runner=local)
    return played


def play_beside(
    group: EnvRunnerGroup, work_until: Callable[[Callable[[], bool]], None]
) -> list[Answer]:
    """The episodes of each env runner that was not lost, with other work going on meanwhile.

    Args:
        group: Remote env runners of the evaluation.
        work_until: Does the other work until its argument returns True.
    """
    playing = {
        index
        for index in group.healthy_worker_ids()
        if group.foreach_env_runner_async(_play, tag=PLAY, remote_worker_ids=[index])
    }
    results: dict[int, Answer] = {}

    def over() -> bool:
        results.update(group.fetch_ready_async_reqs(tags=PLAY, timeout_seconds=0.0))
        return playing.intersection(group.healthy_worker_ids()) <= results.keys()

    work_until(over)
    return list(results.values())


def evaluation_config_of(algorithm: Algorithm) -> AlgorithmConfig:
    """The config that an algorithm's evaluations are played with."""
    return algorithm.evaluation_config or algorithm.config


def protocol_of(env_config: dict[str, Any]) -> str:
    """The protocol of the environments, see `rllib_ezm.tasks.protocol`."""
    return protocol_name(env_config.get("termination", "respect"))


def to_report(
    specs: Sequence[TaskSpec], played: list[PlayedEpisode], protocol: str
) -> EvaluationReport:
    """Group played episodes by task."""
    results = []
    for task_id, spec in enumerate(specs):
        mine = [episode for episode in played if episode.task_id == task_id]
        results.append(
            TaskResult(
                task=spec.name,
                returns=[episode.episode_return for episode in mine],
                lengths=[episode.length for episode in mine],
                normalized_scores=[
                    spec.normalized_score(episode.episode_return) for episode in mine
                ],
                physics_errors=sum(episode.physics_error for episode in mine),
                env_failures=sum(episode.env_failures for episode in mine),
                info={
                    name: [episode.info.get(name) for episode in mine] for name in spec.info_metrics
                },
            )
        )
    return EvaluationReport(tasks=results, protocol=protocol)
