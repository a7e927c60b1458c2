"""Training progress on the screen: one readable line for each result of a trial."""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import click
from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.utils import flatten_dict

# What a line shows: label, result key, format. Keys that a result lacks are left out.
COLUMNS = (
    ("iter", "training_iteration", "{:d}"),
    ("env steps", "num_env_steps_sampled_lifetime", "{:,.0f}"),
    ("updates", "num_updates_lifetime", "{:,.0f}"),
    ("return", "env_runners/episode_return_mean", "{:.2f}"),
    ("score", "normalized_score_mean", "{:.3f}"),
    ("eval score", "evaluation/normalized_score_mean", "{:.3f}"),
)


def format_duration(seconds: float) -> str:
    """Format seconds as `h:mm:ss`."""
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"


def format_result(result: Mapping[str, Any], elapsed_s: float, trial_name: str = "") -> str:
    """Format one result as one line.

    Args:
        result: The result of one training iteration, nested keys joined by "/". What does not
            exist yet (no finished episode) is absent, None or NaN, and left out.
        elapsed_s: Seconds since the start of the experiment.
        trial_name: Shown where several trials run.
    """
    parts = [f"[{format_duration(elapsed_s)}]"]
    if trial_name:
        parts.append(trial_name)
    for label, key, template in COLUMNS:
        value = result.get(key)
        if value is not None and not math.isnan(value):
            parts.append(f"{label} {template.format(value)}")
    return "  ".join(parts)


def missing_stop_key(key: str, reported: Iterable[str]) -> str:
    """Say that a stopping condition cannot hold yet, and which keys look like it."""
    near = difflib.get_close_matches(key, list(reported), n=3)
    hint = f"; reported keys like it: {', '.join(near)}" if near else ""
    return f"The first result has no key {key!r}, so `stop` cannot end the run by it yet{hint}"


class ProgressPrinter(Callback):
    """Tune callback that prints a line for each result and for each failed trial."""

    def __init__(self) -> None:
        self._started_at = time.monotonic()
        self._stop_keys_checked = False

    def setup(
        self,
        stop: Stopper | None = None,
        num_samples: int | None = None,
        total_num_samples: int | None = None,
        **info: Any,
    ) -> None:
        """Start the clock; Tune calls this at the start and again after a resume."""
        self._started_at = time.monotonic()
        self._stop_keys_checked = False

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Print the result; with the first one, the stopping conditions that it has no key for."""
        flat = flatten_dict(result)
        name = _name(trial) if len(trials) > 1 else ""
        click.echo(format_result(flat, time.monotonic() - self._started_at, name))
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


def _name(trial: Trial) -> str:
    """Name the trial by its number and grid values, e.g. `trial 1 lr=0.001`."""
    return f"trial {(trial.experiment_tag or trial.trial_id).replace('_', ' ', 1)}"
