"""When Tune saves the trials of `rllib train file`: a callback and a scheduler of Tune."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from ray.tune import Callback, Checkpoint
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT, TRAINING_ITERATION
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from rllib_ezm.cli.interruption import INTERRUPTION, say
from rllib_ezm.utils.checkpoint_folder import MANIFEST_FILE, write_manifest
from rllib_ezm.utils.ray_internals import forget_checkpoints
from rllib_ezm.utils.trial_folder import (
    RESULTS,
    SAVE_REQUEST,
    clear_status,
    remove,
    surplus_checkpoints,
    write_result,
)


class PauseOnSignal(FIFOScheduler):
    """Trials in their order; after a signal, each is saved and paused when it has a result."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Go on, or save and pause."""
        paused = INTERRUPTION.signal is not None
        return str(TrialScheduler.PAUSE if paused else TrialScheduler.CONTINUE)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The next one, none after a signal."""
        if INTERRUPTION.signal is not None:
            return None
        return super().choose_trial_to_run(tune_controller)


class SaveOnSignal(Callback):
    """After a signal, asks the running trials to end their iteration, and then ends Tune's loop."""

    def __init__(self) -> None:
        self._asked = False

    def setup(self, **info: Any) -> None:
        """Tune calls this at the start and again after a resume."""
        self._asked = False

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Take back what an earlier life of the trial was asked for, or said."""
        _request(trial).unlink(missing_ok=True)
        clear_status(Path(trial.storage.trial_fs_path))

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Called by Tune's loop, several times a second."""
        if INTERRUPTION.signal is None:
            return
        running = [trial for trial in trials if trial.status == Trial.RUNNING]
        INTERRUPTION.given_up = [_given_up(trial) for trial in running]
        if not self._asked:
            self._asked = True
            _ask(running)
        if not running:
            for trial in trials:
                _request(trial).unlink(missing_ok=True)
            signal.raise_signal(signal.SIGUSR1)  # Tune ends its loop as after Ctrl-C


class SaveByTime(Callback):
    """Saves a trial with the first result that comes so many minutes after its last checkpoint."""

    def __init__(self, minutes: float) -> None:
        self._minutes = minutes
        self._saved_at: dict[str, float] = {}

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """The time begins."""
        self._saved_at[trial.trial_id] = time.monotonic()

    on_trial_save = on_trial_start

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Tune saves a trial whose result asks for it."""
        passed = time.monotonic() - self._saved_at.get(trial.trial_id, time.monotonic())
        if self._minutes and passed >= 60 * self._minutes:
            result[SHOULD_CHECKPOINT] = True


class KeepCheckpoints(Callback):
    """Deletes all checkpoints of a trial but the newest ones and the best one.

    A checkpoint of an algorithm that writes no manifest gets one here, once Tune has all of it: it
    is whole then, and is known to be.

    Args:
        keep: How many of the newest; 0 keeps all.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep

    def on_checkpoint(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        checkpoint: Checkpoint,
        **info: Any,
    ) -> None:
        """A checkpoint is complete."""
        _write_results(trial)
        folder = Path(checkpoint.path)
        if folder.is_dir() and not (folder / MANIFEST_FILE).is_file():
            try:
                write_result(folder, trial.last_result or {})
                write_manifest(folder)
            except OSError as error:
                say(f"{folder} stays without checksums: {error}")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Say that a checkpoint could not be written."""
        if "checkpoint_failure" in result:
            say(
                f"No checkpoint was written ({result['checkpoint_failure']}): training goes on, "
                "and the previous checkpoint stays."
            )

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tune knows of the new checkpoint."""
        if not self._keep:
            return
        surplus = surplus_checkpoints(Path(trial.storage.trial_fs_path), self._keep)
        for checkpoint in surplus:
            try:
                remove(checkpoint)
            except OSError as error:
                say(f"{checkpoint} cannot be deleted: {error}")
        forget_checkpoints(trial, set(surplus))


def _write_results(trial: Trial) -> None:
    """The results up to a checkpoint are on the disk with it; Tune waits ten seconds and more."""
    if trial.local_path is None:
        return
    for name in RESULTS:
        written = Path(trial.local_path) / name
        target = Path(trial.storage.trial_fs_path) / name
        temporary = target.with_name(f".{name}.partial")
        try:
            shutil.copyfile(written, temporary)
            os.replace(temporary, target)
        except OSError as error:
            say(f"{target} is behind the checkpoint: {error}")


def _ask(running: list[Trial]) -> None:
    name = INTERRUPTION.signal.name if INTERRUPTION.signal else ""
    say(
        f"{name}: saving {len(running)} running trial{'s' * (len(running) != 1)}, which ends the "
        "iteration early (EZM) or waits for its end (others). Ctrl-C stops at once."
    )
    for trial in running:
        try:
            _request(trial).touch()
        except OSError as error:  # the iteration is waited for instead
            say(f"{trial.trial_id} cannot be asked to hurry: {error}")


def _request(trial: Trial) -> Path:
    return Path(trial.storage.trial_fs_path) / SAVE_REQUEST


def _given_up(trial: Trial) -> str:
    """What would be lost of a trial without another checkpoint."""
    saved = trial.latest_checkpoint_result
    last = int((trial.last_result or {}).get(TRAINING_ITERATION, 0))
    if saved is None:
        return f"Trial {trial.trial_id}: no checkpoint; lost are the iterations up to {last}."
    first = int(saved.metrics.get(TRAINING_ITERATION, 0)) + 1
    lost = f"iterations {first} to {last} and " if last >= first else ""
    return (
        f"Trial {trial.trial_id}: lost are {lost}the one under way. Last checkpoint: "
        f"{saved.checkpoint.path}"
    )
