"""Where the trials of an experiment go on: from the newest whole checkpoint on the disk.

Tune notes the state of its trials every ten seconds or more, and would go on from what it noted
last. Here the folders of the trials decide, after all files of a checkpoint have been compared with
their checksums.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.result import TRAINING_ITERATION

from rllib_ezm.utils.checkpoint_folder import MANIFEST_FILE, verify
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.importing import importable
from rllib_ezm.utils.ray_internals import set_start
from rllib_ezm.utils.trial_folder import RESULTS, checkpoint_number, checkpoints, read_result

if TYPE_CHECKING:
    from rllib_ezm.cli.experiment_file import ExperimentFile

NOT_COMPARED = ("class", "algo_class", "simple_optimizer", "_is_frozen")
LONGEST_VALUE = 60


@dataclass(frozen=True)
class StartPoint:
    """A checkpoint to go on from, and the result it was written with."""

    checkpoint: Path
    result: dict[str, Any]

    @property
    def iteration(self) -> int:
        """Training iterations before it; 0 where the checkpoint does not say."""
        return int(self.result.get(TRAINING_ITERATION, 0))

    @classmethod
    def at(cls, checkpoint: Path) -> StartPoint:
        """Of a checkpoint's folder."""
        return cls(checkpoint, read_result(checkpoint))


@dataclass
class StartPoints:
    """Where each trial starts.

    Attributes:
        of_trials: Name of a trial's folder -> where it goes on; None to begin anew.
        otherwise: Where all other trials start; None at the beginning.
        stop: New bounds of results for all trials; None keeps theirs.
        messages: What was found, a line each.
    """

    of_trials: dict[str, StartPoint | None] = field(default_factory=dict)
    otherwise: StartPoint | None = None
    stop: Mapping[str, float] | None = None
    messages: list[str] = field(default_factory=list)

    @property
    def iterations(self) -> int:
        """Training iterations of all trials together before their start points."""
        return sum(point.iteration for point in self.of_trials.values() if point is not None)

    def of(self, trial_folder: str) -> StartPoint | None:
        """Where a trial starts; None at the beginning."""
        return self.of_trials.get(trial_folder) or self.otherwise


class StartFrom(Callback):
    """Has each trial begin where it shall, when it starts for the first time in this process."""

    def __init__(self, points: StartPoints) -> None:
        self._points = points
        self._numbered: set[str] = set()
        self._started: set[str] = set()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Before actors are made: no number of a checkpoint is given twice."""
        for trial in trials:
            if trial.trial_id not in self._numbered:
                self._numbered.add(trial.trial_id)
                there = checkpoints(Path(trial.storage.trial_fs_path))
                if there:
                    number = checkpoint_number(there[-1]) or 0
                    index = max(trial.storage.current_checkpoint_index, number)
                    trial.storage.current_checkpoint_index = index

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Before Tune restores the trial."""
        if trial.trial_id in self._started:
            return
        self._started.add(trial.trial_id)
        if self._points.stop is not None:
            trial.stopping_criterion = dict(self._points.stop)
        point = self._points.of(trial.storage.trial_dir_name)
        if point is None:
            set_start(trial, None, {})
            if trial.local_path is not None:  # Tune's loggers would append to an earlier life
                for name in RESULTS:
                    (Path(trial.local_path) / name).unlink(missing_ok=True)
        else:
            set_start(trial, point.checkpoint, point.result)


def find_start_points(folder: Path, registered: Mapping[str, Path]) -> StartPoints:
    """Find the newest whole checkpoint of every trial.

    Args:
        folder: The experiment's folder.
        registered: Name of a trial's folder -> the last checkpoint that Tune has noted. It is taken
            where no checkpoint has checksums, as those of earlier versions.
    """
    points = StartPoints()
    names = {path.parent.name for path in folder.glob("*/checkpoint_*")}
    names |= {path.parent.name for path in folder.glob(f"*/{RESULTS[0]}")}
    for name in sorted(names):
        point = _newest_whole(folder / name, points.messages)
        noted = registered.get(name)
        unmarked = noted is not None and noted.is_dir() and not (noted / MANIFEST_FILE).exists()
        if point is None and noted is not None and unmarked:
            points.messages.append(f"{noted} has no checksums, and is used all the same.")
            point = StartPoint.at(noted)
        if point is None:
            points.messages.append(f"No whole checkpoint in {folder / name}: it begins anew.")
        else:
            points.messages.append(
                f"Going on from {point.checkpoint} (iteration {point.iteration})"
            )
        points.of_trials[name] = point
    return points


def _newest_whole(trial_folder: Path, messages: list[str]) -> StartPoint | None:
    for checkpoint in reversed(checkpoints(trial_folder)):
        try:
            verify(checkpoint)
        except (UserError, OSError) as error:
            messages.append(f"Skipping {checkpoint.name}: {error}")
            continue
        return StartPoint.at(checkpoint)
    return None


def tidy_up(folder: Path, points: StartPoints) -> None:
    """Prepare the folders of the trials: results stay, also of a trial that begins anew."""
    for name, point in points.of_trials.items():
        trial_folder = folder / name
        for left in (*trial_folder.glob(".checkpoint_*.partial"), *_removed(trial_folder)):
            shutil.rmtree(left, ignore_errors=True)
        for file in (trial_folder / result for result in RESULTS):
            if not file.is_file():
                continue
            _cut_last_line(file)
            if point is None and points.otherwise is None:
                _rename(file)


def _removed(trial_folder: Path) -> list[Path]:
    return [
        *trial_folder.glob(".checkpoint_*.removed"),
        *trial_folder.glob(".checkpoint_*.previous"),
    ]


def _cut_last_line(file: Path) -> None:
    """Drop a line that a killed process has not finished: the next one would be joined to it."""
    content = file.read_bytes()
    if content and not content.endswith(b"\n"):
        file.write_bytes(content[: content.rfind(b"\n") + 1])


def _rename(file: Path) -> None:
    number = 1
    while (new := file.with_name(f"{file.stem}.earlier-{number}{file.suffix}")).exists():
        number += 1
    file.rename(new)


def usable_state(folder: Path) -> None:
    """Put aside notes of Tune that a killed process has left half written; an older one is used.

    Raises:
        UserError: There are notes, and none that can be read.
    """
    states = sorted(folder.glob("experiment_state-*.json"), reverse=True)
    for state in states:
        try:
            json.loads(state.read_text())
            return
        except ValueError:
            state.rename(state.with_suffix(".damaged"))
    if states:
        found = [path for name in folder.glob("*") for path in checkpoints(name)]
        hint = f"; start a new run with --restore {found[-1]}" if found else ""
        raise UserError(f"--resume: Tune's notes in {folder} cannot be read{hint}")


def restore_point(checkpoint: Path, file: ExperimentFile) -> tuple[StartPoint, list[str]]:
    """The checkpoint that a new run starts from, and what the file sets differently.

    Raises:
        UserError: It is damaged, or of another algorithm.
    """
    messages, manifest = [], None
    if (checkpoint / MANIFEST_FILE).exists():
        manifest = verify(checkpoint)
    else:
        messages.append(f"{checkpoint} has no checksums: nothing tells whether it is whole.")
    try:
        stream = (checkpoint / "class_and_ctor_args.pkl").open("rb")
        with importable(checkpoint, manifest), stream:
            stored = pickle.load(stream)
    except (OSError, pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"--restore: {checkpoint} cannot be read: {error}") from error
    if stored["class"].__name__ != file.algorithm.__name__:
        raise UserError(
            f"--restore: {checkpoint} is of {stored['class'].__name__}, {file.path} trains "
            f"{file.algorithm.__name__}"
        )
    args, kwargs = stored["ctor_args_and_kwargs"]
    config = args[0] if args else kwargs["config"]
    old = config if isinstance(config, dict) else config.to_dict()
    messages += different_settings(old, file.config.to_dict())
    return StartPoint.at(checkpoint), messages


def different_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A line for each setting whose value is not that of the checkpoint."""
    lines = []
    for name in sorted(old.keys() & new.keys()):
        before, now = _text(old[name]), _text(new[name])
        if name not in NOT_COMPARED and before != now:
            lines.append(f"Differs:     {name} = {_short(now)} (checkpoint: {_short(before)})")
    return lines


def _text(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
