"""Evaluation of a checkpoint in this process, without a Ray cluster."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_ENV_TO_MODULE_CONNECTOR, COMPONENT_MODULE_TO_ENV_CONNECTOR

from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner, PlayProgress
from rllib_ezm.algorithm.evaluation import protocol_of, to_report
from rllib_ezm.algorithm.evaluation_report import EvaluationReport
from rllib_ezm.tasks.failure import EnvironmentFailedError
from rllib_ezm.tasks.protocol import PROTOCOLS
from rllib_ezm.utils.checkpoint_folder import MANIFEST_FILE, verify
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.importing import importable

CONNECTOR_FOLDERS = (Path("env_runner"), Path())
"""Where a checkpoint has the states of its connectors; the second without a local env runner."""

MODULE_PATH = Path("learner_group", "learner", "rl_module", "default_policy")


def evaluate_checkpoint(
    path: Path,
    *,
    episodes: int,
    video_dir: Path | None = None,
    num_simulations: int | None = None,
    seed: int | None = None,
    protocol: str | None = None,
    on_progress: Callable[[PlayProgress], None] | None = None,
) -> EvaluationReport:
    """Evaluate a checkpoint in this process; needs no Ray cluster.

    Args:
        path: Folder written by `Algorithm.save_to_path` or by Tune.
        episodes: Full episodes per task.
        video_dir: Folder for one mp4 per task, of an episode that counts; None for none.
        num_simulations: S of the search; 0 acts with the policy mean; None as in the run's
            own evaluations.
        seed: Seed of the environments; None as trained.
        protocol: "benchmark" or "released", see `rllib_ezm.tasks.protocol`; None as the
            run's own evaluations.
        on_progress: Called now and then while the episodes are played.

    Raises:
        UserError: If `path` is not such a checkpoint, or an environment fails again and again.
    """
    runner = load_env_runner(
        path, episodes=episodes, num_simulations=num_simulations, seed=seed, protocol=protocol
    )
    films = []
    if video_dir is not None:
        from rllib_ezm.algorithm.video import film

        films = film(runner, video_dir)
    try:
        played = runner.play_episodes(on_progress=on_progress)
    except EnvironmentFailedError as error:
        raise UserError(str(error)) from error
    for filmed in films:
        print(f"{filmed.name}: return {filmed.episode_return:.1f}, video {filmed.path}")
    report = to_report(runner.tasks.specs, played, protocol_of(runner.config.env_config))
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

    It plays by the checkpoint's own `evaluation_config`, as the evaluations of the run did, except
    for what an argument sets.

    Raises:
        UserError: If `path` holds no checkpoint of an algorithm that uses `MultiTaskEnvRunner`.
    """
    config = load_config(path)
    if not issubclass(config.env_runner_cls, MultiTaskEnvRunner):
        raise UserError(
            f"{path} was trained without rllib_ezm's MultiTaskEnvRunner; `rllib evaluate` needs it "
            "to play every task: set config.env_runners(env_runner_cls=MultiTaskEnvRunner)."
        )
    config = config.get_evaluation_config_object()
    config.num_env_runners = 0
    config.evaluation(evaluation_duration=episodes, evaluation_duration_unit="episodes")
    config.explore = False
    if seed is not None:
        config.debugging(seed=seed)
    if num_simulations is not None:
        config.num_simulations_at_eval = num_simulations
    config.env_config = {**config.env_config, "num_env_processes": 0}  # `film` takes slots of it
    if protocol is not None:
        config.env_config["termination"] = PROTOCOLS[protocol]
    runner = MultiTaskEnvRunner(config=config, worker_index=0, num_workers=0)
    runner.module.restore_from_path(path / MODULE_PATH)
    runner.restore_connectors(path / connector_folder(path))
    return runner


def connector_folder(path: Path) -> Path:
    """The folder of a checkpoint that has its connectors' states.

    Raises:
        UserError: There is none.
    """
    for folder in CONNECTOR_FOLDERS:
        if (path / folder / COMPONENT_ENV_TO_MODULE_CONNECTOR).is_dir():
            return folder
    raise UserError(f"{path} lacks the states of its connectors: it is no whole checkpoint.")


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
        folder = connector_folder(path)
        connectors = [
            (folder / name).as_posix()
            for name in (COMPONENT_ENV_TO_MODULE_CONNECTOR, COMPONENT_MODULE_TO_ENV_CONNECTOR)
        ]
        manifest = verify(path, within=(arguments.name, MODULE_PATH.as_posix(), *connectors))
    with importable(path, manifest), arguments.open("rb") as file:
        stored = pickle.load(file)
    args, kwargs = stored["ctor_args_and_kwargs"]
    config: Any = args[0] if args else kwargs["config"]
    if isinstance(config, dict):
        config = stored["class"].get_default_config().update_from_dict(config)
    return config
