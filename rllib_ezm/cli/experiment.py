"""Run an experiment file with Ray Tune: the tuner, and what came of it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.utils import flatten_dict

from rllib_ezm.cli.loggers import loggers
from rllib_ezm.cli.progress import ProgressPrinter
from rllib_ezm.cli.resume import (
    StartFrom,
    StartPoint,
    StartPoints,
    find_start_points,
    tidy_up,
    usable_state,
)
from rllib_ezm.cli.saving import KeepCheckpoints, PauseOnSignal, SaveByTime, SaveOnSignal
from rllib_ezm.utils.checkpoint_folder import LAST_FLAT_VERSION
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.ownership import warn_of_other_owner
from rllib_ezm.utils.ray_internals import reconfigure

if TYPE_CHECKING:
    from rllib_ezm.cli.experiment_file import ExperimentFile

OPTIONS_FILE = "rllib_run.json"
_ANOTHER_EXCEPTION = "\n\nDuring handling of the above exception, another exception occurred:\n\n"
_MODULE_OF_ERROR = re.compile(r"^(\w+\.)+(?=\w+: )")


@dataclass(frozen=True)
class RunOptions:
    """How Tune runs an experiment file; kept in the experiment's folder for a resume.

    Attributes:
        checkpoint_freq: Iterations between checkpoints; 0 for none on the way.
        checkpoint_at_end: Whether a finished trial leaves a checkpoint.
        checkpoint_minutes: Minutes between checkpoints; 0 for none by time.
        keep: How many of the newest checkpoints are kept beside the best one; 0 for all.
        num_samples: Trials per point of the file's grid.
        seed: Overrides the config's seed; None keeps it.
        smoke: Whether the config is scaled down, see `rllib_ezm.cli.smoke`.
        stop: Bounds of `--stop`; None for the file's `stop`.
        restore: Checkpoint that every trial starts from; None for none.
        commands: What was typed to start the experiment and to go on with it.
        overrides: Settings of the file changed by `--set`, see `rllib_ezm.cli.overrides`.
        wandb: Project at Weights & Biases for the curves; None for none.
        mlflow: Tracking URI of MLflow for the curves; None for none.
    """

    checkpoint_freq: int = 0
    checkpoint_at_end: bool = True
    checkpoint_minutes: float = 10.0
    keep: int = 2
    num_samples: int = 1
    seed: int | None = None
    smoke: bool = False
    stop: Mapping[str, float] | None = None
    restore: str | None = None
    commands: Sequence[str] = ()
    overrides: Sequence[str] = ()
    wandb: str | None = None
    mlflow: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RunOptions:
        """From the values of a command's options, or of a file."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})

    def write(self, folder: Path) -> None:
        """Keep them in the experiment's folder."""
        (folder / OPTIONS_FILE).write_text(json.dumps(asdict(self)) + "\n")


@dataclass(frozen=True)
class TrialOutcome:
    """What one trial left behind.

    Attributes:
        folder: The trial's folder.
        checkpoint: Its last checkpoint, if any.
        iterations: Training iterations done over its whole life.
        done: Whether it reached its stopping condition.
        failure: Last line of its error, if it failed.
        metrics: Its last result.
    """

    folder: Path
    checkpoint: Path | None
    iterations: int
    done: bool
    failure: str | None
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class ExperimentOutcome:
    """What an experiment left behind: its folder and its trials."""

    folder: Path
    trials: tuple[TrialOutcome, ...]

    @property
    def failed(self) -> bool:
        """Whether any trial failed."""
        return any(trial.failure is not None for trial in self.trials)

    @property
    def interrupted(self) -> bool:
        """Whether any trial neither reached its end nor failed, as after Ctrl-C."""
        return any(not trial.done and trial.failure is None for trial in self.trials)

    @property
    def iterations(self) -> int:
        """Training iterations of all trials together."""
        return sum(trial.iterations for trial in self.trials)


def new_tuner(file: ExperimentFile, folder: Path, options: RunOptions) -> tune.Tuner:
    """Return the tuner of a new experiment.

    Args:
        file: The experiment file.
        folder: The experiment's folder, which must not exist.
        options: How to run it.

    Raises:
        UserError: If the folder exists, or what an option needs is missing.
    """
    if folder.exists():
        raise UserError(
            f"{folder} exists: choose another --experiment-name, or go on with --resume {folder}"
        )
    callbacks = _callbacks(folder, options, _start_points(options))
    folder.mkdir(parents=True)
    options.write(folder)
    param_space, num_samples = _seeded(file, options)
    return tune.Tuner(
        file.algorithm,
        param_space=param_space,
        tune_config=tune.TuneConfig(num_samples=num_samples, scheduler=PauseOnSignal()),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            stop=file.stop,
            verbose=0,
            callbacks=callbacks,
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=options.checkpoint_freq,
                checkpoint_at_end=options.checkpoint_at_end,
            ),
        ),
    )


def _callbacks(folder: Path, options: RunOptions, points: StartPoints) -> list[tune.Callback]:
    """Those that save stand before Tune's loggers, which write what they add to a result."""
    return [
        SaveOnSignal(),
        StartFrom(points),
        SaveByTime(options.checkpoint_minutes),
        KeepCheckpoints(options.keep),
        ProgressPrinter(),
        *loggers(folder.name, wandb=options.wandb, mlflow=options.mlflow),
    ]


def _start_points(options: RunOptions) -> StartPoints:
    restore = None if options.restore is None else StartPoint.at(Path(options.restore))
    return StartPoints(otherwise=restore)


@dataclass(frozen=True)
class ResumedExperiment:
    """An experiment that goes on.

    Attributes:
        tuner: Its tuner.
        points: Where its trials go on.
        is_over: Whether all trials have reached their end.
    """

    tuner: tune.Tuner
    points: StartPoints
    is_over: bool


def kept_options(folder: Path) -> RunOptions:
    """The options that an experiment was started with.

    Raises:
        UserError: If the folder holds no experiment.
    """
    if not _is_experiment(folder):
        hint = next((f"; did you mean {p}" for p in folder.parents if _is_experiment(p)), "")
        raise UserError(
            f"--resume: {folder} is not the folder of an experiment of `rllib train file`{hint}"
        )
    return RunOptions.of(json.loads((folder / OPTIONS_FILE).read_text()))


def resume(file: ExperimentFile, folder: Path, changes: Mapping[str, Any]) -> ResumedExperiment:
    """Go on with an experiment that was interrupted, failed, or shall go on beyond its end.

    Args:
        file: What the experiment was started from, with its `kept_options` applied: Tune needs the
            config again.
        folder: The experiment's folder.
        changes: Fields of `RunOptions` that were given anew; `commands` are added.

    Raises:
        UserError: If the folder holds no experiment, or one of another algorithm.
    """
    kept = kept_options(folder)
    warn_of_other_owner(folder)
    given = {**changes, "commands": [*kept.commands, *changes.get("commands", ())]}
    options = dataclasses.replace(kept, **given)
    usable_state(folder)
    tuner = _restored_tuner(file, folder, options)
    before = tuner.get_results()
    noted = {
        Path(result.path).name: Path(result.checkpoint.path)
        for result in (before[index] for index in range(len(before)))
        if result.checkpoint is not None
    }
    points = find_start_points(folder, noted)
    points.otherwise = _start_points(options).otherwise
    finished = [trial for trial in outcome(before).trials if trial.done]
    points.stop = options.stop
    goes_beyond = "stop" in changes and any(
        not _meets(t.metrics, changes["stop"]) for t in finished
    )
    is_over = len(finished) == len(before) > 0 and not goes_beyond
    if not is_over:
        options.write(folder)
        tidy_up(folder, points)
    reconfigure(
        tuner,
        callbacks=_callbacks(folder, options, points),
        scheduler=PauseOnSignal(),
        stop=options.stop,
        resume_finished=goes_beyond,
    )
    return ResumedExperiment(tuner, points, is_over)


def _meets(metrics: Mapping[str, Any], stop: Mapping[str, float]) -> bool:
    flat = flatten_dict(dict(metrics))
    return any(key in flat and flat[key] >= bound for key, bound in stop.items())


def _restored_tuner(file: ExperimentFile, folder: Path, options: RunOptions) -> tune.Tuner:
    param_space, _ = _seeded(file, options)
    try:
        return tune.Tuner.restore(
            str(folder),
            trainable=file.algorithm,
            param_space=param_space,
            resume_unfinished=True,
            resume_errored=True,
        )
    except ValueError as error:
        raise UserError(f"--resume: {folder} does not belong to {file.path}: {error}") from error
    except ModuleNotFoundError as error:
        own = (error.name or "").startswith("rllib_ezm")
        fix = f"go on with {LAST_FLAT_VERSION}" if own else "put its folder on PYTHONPATH"
        raise UserError(
            f"--resume: {folder} was written with the module {error.name}, which does not exist "
            f"here: {fix}"
        ) from error


def outcome(results: tune.ResultGrid) -> ExperimentOutcome:
    """Summarize what Tune returned."""
    trials = [_trial_outcome(results[index]) for index in range(len(results))]
    trials.sort(key=lambda trial: trial.folder)
    return ExperimentOutcome(folder=Path(results.experiment_path), trials=tuple(trials))


def _trial_outcome(result: tune.Result) -> TrialOutcome:
    folder = Path(result.path)
    failure = None
    if result.error is not None:
        error_file = folder / "error.txt"
        text = error_file.read_text() if error_file.is_file() else str(result.error)
        failure = cause_of(text)
    metrics = result.metrics or {}
    return TrialOutcome(
        folder=folder,
        checkpoint=Path(result.checkpoint.path) if result.checkpoint else None,
        iterations=int(metrics.get("training_iteration", 0)),
        done=bool(metrics.get("done", False)),
        failure=failure,
        metrics=metrics,
    )


def cause_of(text: str) -> str:
    """The last line of a failed trial's error, or what that one hides.

    RLlib's `Algorithm.__repr__`, which Ray puts into the message, fails before the config is
    validated, and hides why it is not valid. An env runner whose constructor raises is only logged
    by RLlib, which then fails to read its spaces; `EZM` says why itself.
    """
    first, *later = text.strip().split(_ANOTHER_EXCEPTION)
    if later and "in __repr__\n" in later[-1]:
        return first.splitlines()[-1]
    last = _MODULE_OF_ERROR.sub("", text.strip().splitlines()[-1])
    if last.startswith("IndexError") and "in get_spaces\n" in text:
        return "an env runner could not be created; --verbose shows why"
    return last


def _seeded(file: ExperimentFile, options: RunOptions) -> tuple[dict[str, Any], int]:
    """Return Tune's `param_space` and `num_samples`.

    Equal seeds are equal runs, so the samples of a seeded config become a grid over seeds that
    follow each other.
    """
    param_space = file.config.to_dict()
    seed = param_space["seed"] if options.seed is None else options.seed
    if not isinstance(seed, int):
        return param_space, options.num_samples
    if options.num_samples == 1:
        return {**param_space, "seed": seed}, 1
    seeds = list(range(seed, seed + options.num_samples))
    return {**param_space, "seed": tune.grid_search(seeds)}, 1


def _is_experiment(folder: Path) -> bool:
    return (folder / OPTIONS_FILE).is_file() and tune.Tuner.can_restore(str(folder))
