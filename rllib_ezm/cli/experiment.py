"""Run an experiment file with Ray Tune: the tuner, and what came of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from rllib_ezm.cli.progress import ProgressPrinter
from rllib_ezm.cli.saving import KeepCheckpoints, PauseOnSignal, SaveByTime, SaveOnSignal
from rllib_ezm.utils.checkpoint_folder import LAST_FLAT_VERSION
from rllib_ezm.utils.errors import UserError

if TYPE_CHECKING:
    from rllib_ezm.cli.experiment_file import ExperimentFile

OPTIONS_FILE = "rllib_run.json"


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
    """

    checkpoint_freq: int = 0
    checkpoint_at_end: bool = True
    checkpoint_minutes: float = 10.0
    keep: int = 2
    num_samples: int = 1
    seed: int | None = None
    smoke: bool = False


@dataclass(frozen=True)
class TrialOutcome:
    """What one trial left behind.

    Attributes:
        folder: The trial's folder.
        checkpoint: Its last checkpoint, if any.
        iterations: Training iterations done over its whole life.
        done: Whether it reached its stopping condition.
        failure: Last line of its error, if it failed.
    """

    folder: Path
    checkpoint: Path | None
    iterations: int
    done: bool
    failure: str | None


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
        UserError: If the folder exists.
    """
    if folder.exists():
        raise UserError(
            f"{folder} exists: choose another --experiment-name, or go on with --resume {folder}"
        )
    folder.mkdir(parents=True)
    (folder / OPTIONS_FILE).write_text(json.dumps(asdict(options)) + "\n")
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
            callbacks=_callbacks(options),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=options.checkpoint_freq,
                checkpoint_at_end=options.checkpoint_at_end,
            ),
        ),
    )


def _callbacks(options: RunOptions) -> list[tune.Callback]:
    """Those that save stand before Tune's loggers, which write what they add to a result."""
    return [
        SaveOnSignal(),
        SaveByTime(options.checkpoint_minutes),
        KeepCheckpoints(options.keep),
        ProgressPrinter(),
    ]


def resumed_tuner(file: ExperimentFile, folder: Path) -> tune.Tuner:
    """Return the tuner of an experiment that was interrupted or failed.

    Args:
        file: The file the experiment was started from: Tune needs its config again.
        folder: The experiment's folder.

    Raises:
        UserError: If the folder holds no experiment, or one of another algorithm.
    """
    if not _is_experiment(folder):
        hint = next((f"; did you mean {p}" for p in folder.parents if _is_experiment(p)), "")
        raise UserError(
            f"--resume: {folder} is not the folder of an experiment of `rllib train file`{hint}"
        )
    options = RunOptions(**json.loads((folder / OPTIONS_FILE).read_text()))
    if options.smoke:
        file = file.scaled_down()
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
        failure = text.strip().splitlines()[-1]
    metrics = result.metrics or {}
    return TrialOutcome(
        folder=folder,
        checkpoint=Path(result.checkpoint.path) if result.checkpoint else None,
        iterations=int(metrics.get("training_iteration", 0)),
        done=bool(metrics.get("done", False)),
        failure=failure,
    )


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
