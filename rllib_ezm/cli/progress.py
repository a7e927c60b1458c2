"""Training progress on the screen: live on a terminal, a line for each result elsewhere."""

from __future__ import annotations

import difflib
import math
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.utils import flatten_dict
from rich.live import Live

from rllib_ezm.cli.live import is_live, show
from rllib_ezm.utils.trial_folder import clear_status, read_status

ITERATION, ENV_STEPS, UPDATES = (
    "training_iteration",
    "num_env_steps_sampled_lifetime",
    "num_updates_lifetime",
)
COUNTERS = (
    ENV_STEPS,
    UPDATES,
    ITERATION,
    "time_total_s",
    "timesteps_total",
    "env_runners/num_env_steps_sampled_lifetime",
    "env_runners/num_episodes_lifetime",
)
"""Result keys that only grow: how much of a bound on them is done says how much of the run is."""

SCORE = "normalized_score_mean"
COLUMNS = (
    ("eval score", "evaluation/normalized_score_mean", "{:.3f}"),
    ("return", "env_runners/episode_return_mean", "{:.2f}"),
)
"""Label, result key, format. The return is left out beside a score: it mixes tasks."""

TASK_SCORE = re.compile(r"tasks/(.+)/normalized_score")
MOST_TASKS = 4
"""Tasks whose scores are shown one by one."""

WINDOW = 10
"""Results over which trend and speed are measured."""

FIRST_HEARTBEAT_S, LAST_HEARTBEAT_S = 8.0, 600.0


class Trend(NamedTuple):
    """What the last results of a trial together say.

    Attributes:
        score: Change of the score over them; None without two scores.
        left_s: Seconds to the end of the run; None where that is unknown.
    """

    score: float | None = None
    left_s: float | None = None


def format_duration(seconds: float) -> str:
    """Format seconds as `h:mm:ss`."""
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"


def fraction_done(result: Mapping[str, Any], stop: Mapping[str, float]) -> float | None:
    """How much of a run is done, in [0, 1]; None where no bound is on a counter."""
    shares = [
        result[key] / bound
        for key, bound in stop.items()
        if key in COUNTERS and bound > 0 and _is_known(result.get(key))
    ]
    return min(max(shares), 1.0) if shares else None


def short_names(names: list[str]) -> list[str]:
    """Names without the words that all of them begin with: `dmc:walker-run` becomes `run`."""
    shared = 0
    if len(names) > 1:
        for index, characters in enumerate(zip(*names, strict=False), start=1):
            if len(set(characters)) > 1:
                break
            if not characters[0].isalnum():
                shared = index
    return [name[shared:] for name in names]


def task_scores(result: Mapping[str, Any]) -> str:
    """The scores of the tasks that have one; of many, the lowest and the highest."""
    scores = {
        match[1]: float(value)
        for key, value in result.items()
        if (match := TASK_SCORE.fullmatch(key)) and _is_known(value)
    }
    names = dict(zip(scores, short_names(list(scores)), strict=True))
    if len(scores) < 2:
        return ""
    if len(scores) <= MOST_TASKS:
        return "  ".join(f"{names[task]} {score:.2f}" for task, score in scores.items())
    low, high = min(scores, key=lambda t: scores[t]), max(scores, key=lambda t: scores[t])
    return (
        f"{len(scores)} tasks {scores[low]:.2f} ({names[low]}) to "
        f"{scores[high]:.2f} ({names[high]})"
    )


def format_result(
    result: Mapping[str, Any],
    elapsed_s: float,
    trial_name: str = "",
    *,
    stop: Mapping[str, float] | None = None,
    trend: Trend | None = None,
    phase: str = "",
) -> str:
    """Format one result as one line.

    Args:
        result: The result of one training iteration, nested keys joined by "/". What does not
            exist yet (no finished episode) is absent, None or NaN, and left out.
        elapsed_s: Seconds since the start of the experiment.
        trial_name: Shown where several trials run.
        stop: Bounds of the run.
        trend: What the last results say.
        phase: What goes on.
    """
    stop, trend = stop or {}, trend or Trend()
    parts = [f"[{format_duration(elapsed_s)}]", trial_name, phase]

    def known(key: str, template: str) -> str:
        return template.format(result[key]) if _is_known(result.get(key)) else ""

    parts.append(known(ITERATION, "iter {:d}"))
    goal = f" of {stop[ENV_STEPS]:,.0f}" if ENV_STEPS in stop else ""
    parts.append(known(ENV_STEPS, "env steps {:,.0f}" + goal))
    fraction = fraction_done(result, stop)
    parts.append("" if fraction is None else f"{fraction:.0%}")
    goal = f" of {stop[UPDATES]:,.0f}" if UPDATES in stop else ""
    rate = known("throughput/updates_per_s", " ({:.1f}/s)")
    parts.append(known(UPDATES, "updates {:,.0f}" + goal + rate))
    change = "" if trend.score is None else f" ({trend.score:+.3f})"
    parts.append(known(SCORE, "score {:.3f}" + change))
    parts.append(task_scores(result))
    for label, key, template in COLUMNS:
        if label != "return" or not _is_known(result.get(SCORE)):
            parts.append(known(key, f"{label} {template}"))
    parts.append("" if trend.left_s is None else f"{format_duration(trend.left_s)} left")
    return "  ".join(filter(None, parts))


def missing_stop_key(key: str, reported: Iterable[str]) -> str:
    """Say that a stopping condition cannot hold yet, and which keys look like it."""
    near = difflib.get_close_matches(key, list(reported), n=3)
    hint = f"; reported keys like it: {', '.join(near)}" if near else ""
    return f"The first result has no key {key!r}, so `stop` cannot end the run by it yet{hint}"


class TrialProgress:
    """The last results of one trial."""

    def __init__(self) -> None:
        self.result: dict[str, Any] = {}
        self.phase = ""
        self._scores: deque[float] = deque(maxlen=WINDOW)
        self._fractions: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def add(self, result: dict[str, Any], stop: Mapping[str, float], now: float) -> None:
        """Take a result, flat, at a monotonic time."""
        self.result = result
        if _is_known(result.get(SCORE)):
            self._scores.append(float(result[SCORE]))
        fraction = fraction_done(result, stop)
        if fraction is not None:
            self._fractions.append((now, fraction))

    def trend(self) -> Trend:
        """What they say together."""
        score = self._scores[-1] - self._scores[0] if len(self._scores) > 1 else None
        if len(self._fractions) < 2:
            return Trend(score)
        (began, before), (ended, done) = self._fractions[0], self._fractions[-1]
        if done <= before:
            return Trend(score)
        return Trend(score, (1.0 - done) * (ended - began) / (done - before))


class ProgressPrinter(Callback):
    """Tune callback that shows the running trials, and prints a line for each that failed.

    On a terminal there is a line for each running trial, redrawn several times a second. Elsewhere
    a line is printed for each result and each new phase, and, ever more rarely, where nothing else
    happens.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._started_at = self._printed_at = time.monotonic()
        self._gap = FIRST_HEARTBEAT_S
        self._stop_keys_checked = False
        self._progress: dict[str, TrialProgress] = {}
        self._trials: list[Trial] = []
        self._live: Live | None = None

    def setup(
        self,
        stop: Stopper | None = None,
        num_samples: int | None = None,
        total_num_samples: int | None = None,
        **info: Any,
    ) -> None:
        """Start the clock; Tune calls this at the start and again after a resume."""
        self._begin()
        if is_live(sys.stdout):
            self._live = LIVE.start(show(self.lines))

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Called by Tune's loop, several times a second."""
        self._trials = list(trials)
        if self._live is not None:
            return
        for trial in trials:
            if trial.status != Trial.RUNNING:
                continue
            progress = self._of(trial)
            phase = _status(trial).get("phase", "starting")
            waited = time.monotonic() - self._printed_at
            if phase == progress.phase and waited < self._gap:
                continue
            if phase == progress.phase:
                self._gap = min(2 * self._gap, LAST_HEARTBEAT_S)
            elif progress.result and progress.phase:
                progress.phase = phase  # the lines of results show that it goes on
                continue
            progress.phase = phase
            self._print(self._line(trial, with_iteration=False))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Show the result; with the first one, the stopping conditions that it has no key for."""
        flat = flatten_dict(result)
        progress = self._of(trial)
        progress.add(flat, _stop(trial), time.monotonic())
        self._trials = list(trials)
        if self._live is None:
            self._print(self._line(trial, phase=""))
        if not self._stop_keys_checked:
            self._stop_keys_checked = True
            for key in trial.stopping_criterion:
                if key not in flat:
                    click.echo(missing_stop_key(key, flat))

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Say that the trial failed; the end of the run says why."""
        elapsed = format_duration(time.monotonic() - self._started_at)
        click.echo(f"[{elapsed}]  {_name(trial)} failed")

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Leave the last lines on the screen, and nothing in the folders of the trials."""
        LIVE.stop()
        for trial in trials:
            clear_status(Path(trial.storage.trial_fs_path))

    def lines(self) -> list[str]:
        """What a terminal shows now: a line for each running trial, or for the last ones."""
        running = [trial for trial in self._trials if trial.status == Trial.RUNNING]
        elapsed = format_duration(time.monotonic() - self._started_at)
        shown = running or [trial for trial in self._trials if trial.trial_id in self._progress]
        return [self._line(trial) for trial in shown] or [f"[{elapsed}]  waiting for resources"]

    def _of(self, trial: Trial) -> TrialProgress:
        return self._progress.setdefault(trial.trial_id, TrialProgress())

    def _line(self, trial: Trial, *, phase: str | None = None, with_iteration: bool = True) -> str:
        progress, status = self._of(trial), {}
        if phase is None:
            status = _status(trial)
            phase = " ".join(
                str(status[key]) for key in ("phase", "detail") if status.get(key)
            ) or ("" if progress.result else "starting")
        result = dict(progress.result)
        if not with_iteration:
            result.pop(ITERATION, None)
        for key, name in ((ENV_STEPS, "env_steps"), (UPDATES, "updates")):
            if name in status:  # newer than the last result
                result[key] = max(status[name], result.get(key, 0))
        return format_result(
            result,
            time.monotonic() - self._started_at,
            _name(trial) if len(self._trials) > 1 else "",
            stop=_stop(trial),
            trend=progress.trend(),
            phase=phase,
        )

    def _print(self, line: str) -> None:
        self._printed_at = time.monotonic()
        click.echo(line)
        sys.stdout.flush()


class _LiveDisplay:
    """The one of this process, to be stopped also where Tune's loop ends by an exception."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def start(self, live: Live) -> Live:
        """Keep a display that was started."""
        self.stop()
        self._live = live
        return live

    def stop(self) -> None:
        """Stop it, if there is one."""
        if self._live is not None:
            self._live.stop()
            self._live = None


LIVE = _LiveDisplay()


def _is_known(value: Any) -> bool:
    return value is not None and not math.isnan(value)


def _stop(trial: Trial) -> Mapping[str, float]:
    stop: Any = trial.stopping_criterion
    return stop if isinstance(stop, Mapping) else {}


def _status(trial: Trial) -> dict[str, Any]:
    storage = getattr(trial, "storage", None)
    return {} if storage is None else read_status(Path(storage.trial_fs_path))


def _name(trial: Trial) -> str:
    """Name the trial by its number and grid values, e.g. `trial 1 lr=0.001`."""
    return f"trial {(trial.experiment_tag or trial.trial_id).replace('_', ' ', 1)}"
