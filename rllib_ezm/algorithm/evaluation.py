"""Evaluation: the same number of full episodes of every task, without exploration."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
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

from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner, PlayedEpisode
from rllib_ezm.algorithm.evaluation_report import EvaluationReport, TaskResult
from rllib_ezm.tasks.multitask import TaskSet, task_set
from rllib_ezm.tasks.protocol import PROTOCOLS, protocol_name
from rllib_ezm.utils.checkpoint_folder import MANIFEST_FILE, verify
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.importing import importable

logger = logging.getLogger(__name__)

PLAY = "play"
MODULE_PATH = Path("learner_group", "learner", "rl_module", "default_policy")


@runtime_checkable
class PlaysEpisodes(Protocol):
    """An algorithm that has its own way to wait for the episodes of an evaluation."""

    def play_episodes(self, env_runner_group: EnvRunnerGroup) -> list[list[PlayedEpisode]]:
        """The episodes of each env runner that was not lost."""
        ...


def evaluate_per_task(
    algorithm: Algorithm, env_runner_group: EnvRunnerGroup
) -> tuple[dict[str, Any], int, int]:
    """RLlib's `custom_evaluation_function`: `evaluation_duration` episodes of every task.

    Logs under `evaluation/`: per task `episode_return_mean` and `normalized_score`, and their means
    over the tasks. Works for every algorithm that collects with `MultiTaskEnvRunner`; asynchronous
    EZM goes on training beside env runners of the evaluation's own. Where an env runner was lost on
    the way, the evaluation is void and nothing is logged.

    Returns:
        An empty dict (RLlib reads the logged metrics), env steps, agent steps.
    """
    play = algorithm.play_episodes if isinstance(algorithm, PlaysEpisodes) else play_and_wait
    results = play(env_runner_group)
    if len(results) < max(env_runner_group.num_remote_env_runners(), 1):
        logger.warning("An env runner was lost in this evaluation, which does not count.")
        return {}, 0, 0
    played = [episode for episodes in results for episode in episodes]
    options = algorithm.config.env_config
    report = to_report(task_set(options["tasks"]), played, _protocol(options))
    log = algorithm.metrics.log_value
    for result in report.tasks:
        key = (EVALUATION_RESULTS, "tasks", result.task)
        log((*key, "episode_return_mean"), result.return_mean, reduce="item")
        log((*key, "normalized_score"), result.normalized_score_mean, reduce="item")
        log((*key, "episodes"), result.episodes, reduce="item")
        log((*key, "physics_errors"), result.physics_errors, reduce="item")
        log((*key, "env_failures"), result.env_failures, reduce="item")
    log((EVALUATION_RESULTS, "normalized_score_mean"), report.normalized_score_mean, reduce="item")
    log((EVALUATION_RESULTS, "normalized_score_iqm"), report.normalized_score_iqm, reduce="item")
    mean_return = float(np.mean([result.return_mean for result in report.tasks]))
    log((EVALUATION_RESULTS, ENV_RUNNER_RESULTS, EPISODE_RETURN_MEAN), mean_return, reduce="item")
    log((EVALUATION_RESULTS, ENV_RUNNER_RESULTS, NUM_EPISODES), len(played), reduce="item")
    steps = sum(episode.length for episode in played)
    return {}, steps, steps


def _play(runner: MultiTaskEnvRunner) -> list[PlayedEpisode]:
    return runner.play_episodes()


def play_and_wait(group: EnvRunnerGroup) -> list[list[PlayedEpisode]]:
    """The episodes of each env runner that was not lost."""
    played: list[list[PlayedEpisode]] = group.foreach_env_runner(
        _play, local_env_runner=group.num_remote_env_runners() == 0
    )
    return played


def play_beside(
    group: EnvRunnerGroup, work_until: Callable[[Callable[[], bool]], None]
) -> list[list[PlayedEpisode]]:
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
    results: dict[int, list[PlayedEpisode]] = {}

    def over() -> bool:
        results.update(group.fetch_ready_async_reqs(tags=PLAY, timeout_seconds=0.0))
        return playing.intersection(group.healthy_worker_ids()) <= results.keys()

    work_until(over)
    return list(results.values())


def evaluate_checkpoint(
    path: Path,
    *,
    episodes: int,
    video_dir: Path | None = None,
    num_simulations: int | None = None,
    seed: int | None = None,
    protocol: str | None = None,
) -> EvaluationReport:
    """Evaluate a checkpoint in this process; needs no Ray cluster.

    Args:
        path: Folder written by `Algorithm.save_to_path` or by Tune.
        episodes: Full episodes per task.
        video_dir: Folder for one mp4 per task; None for none.
        num_simulations: S of the search; 0 acts with the policy mean; None as trained.
        seed: Seed of the environments; None as trained.
        protocol: "benchmark" or "released", see `rllib_ezm.tasks.protocol`; None as trained.

    Raises:
        UserError: If `path` is not such a checkpoint.
    """
    runner = load_env_runner(
        path, episodes=episodes, num_simulations=num_simulations, seed=seed, protocol=protocol
    )
    report = to_report(runner.tasks, runner.play_episodes(), _protocol(runner.config.env_config))
    if video_dir is not None:
        from rllib_ezm.algorithm.video import record_videos

        record_videos(
            runner.module,
            runner.tasks,
            video_dir,
            seed=seed or 0,
            termination=PROTOCOLS[report.protocol],
        )
    runner.stop()
    return report


def load_env_runner(
    path: Path,
    *,
    episodes: int,
    num_simulations: int | None,
    seed: int | None,
    protocol: str | None = None,
) -> MultiTaskEnvRunner:
    """An env runner with a checkpoint's weights, `episodes` slots per task.

    Raises:
        UserError: If `path` holds no checkpoint of an algorithm that uses `MultiTaskEnvRunner`.
    """
    config = load_config(path)
    config = config.copy(copy_frozen=False)
    if not issubclass(config.env_runner_cls, MultiTaskEnvRunner):
        raise UserError(
            f"{path} was trained without rllib_ezm's MultiTaskEnvRunner; `rllib evaluate` needs it "
            "to play every task: set config.env_runners(env_runner_cls=MultiTaskEnvRunner)."
        )
    config.in_evaluation = True
    config.num_env_runners = 0
    config.evaluation(evaluation_duration=episodes, evaluation_duration_unit="episodes")
    config.explore = False
    if seed is not None:
        config.debugging(seed=seed)
    if num_simulations is not None:
        config.num_simulations_at_eval = num_simulations
    if protocol is not None:
        config.env_config = {**config.env_config, "termination": PROTOCOLS[protocol]}
    runner = MultiTaskEnvRunner(config=config, worker_index=0, num_workers=0)
    runner.module.restore_from_path(path / MODULE_PATH)
    return runner


def load_config(path: Path) -> AlgorithmConfig:
    """The config of an algorithm's checkpoint, which RLlib stores as a pickle.

    Raises:
        UserError: If `path` holds no checkpoint of an algorithm, or a damaged one.
    """
    arguments = path / "class_and_ctor_args.pkl"
    if not arguments.is_file() or not (path / MODULE_PATH).is_dir():
        raise UserError(
            f"{path} is not an algorithm checkpoint: it lacks {arguments.name} or {MODULE_PATH}."
        )
    manifest = None
    if (path / MANIFEST_FILE).is_file():  # other algorithms on our env runner write none
        manifest = verify(path, within=(arguments.name, MODULE_PATH.as_posix()))
    with importable(path, manifest), arguments.open("rb") as file:
        stored = pickle.load(file)["ctor_args_and_kwargs"]
    config = stored[0][0] if stored[0] else stored[1]["config"]
    return config if not isinstance(config, dict) else _from_dict(config)


def _from_dict(config: dict[str, Any]) -> Any:
    from rllib_ezm.algorithm.config import EZMConfig

    return EZMConfig().update_from_dict(config)


def _protocol(env_config: dict[str, Any]) -> str:
    return protocol_name(env_config.get("termination", "respect"))


def to_report(tasks: TaskSet, played: list[PlayedEpisode], protocol: str) -> EvaluationReport:
    """Group played episodes by task."""
    results = []
    for task_id, spec in enumerate(tasks.specs):
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
            )
        )
    return EvaluationReport(tasks=results, protocol=protocol)
