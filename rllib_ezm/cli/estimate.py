"""How long a training will take, said before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click
from ray.exceptions import RayError
from ray.tune.result import TIME_TOTAL_S

from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.cli.cluster import num_variants
from rllib_ezm.cli.forecast import Rates, forecast, probe_as_trial
from rllib_ezm.utils.errors import UserError

if TYPE_CHECKING:
    from rllib_ezm.cli.experiment_file import ExperimentFile

PROBE_SECONDS = 5.0
QUICK = Rates(
    seconds_per_env_step=0.01,
    seconds_per_update=0.1,
    env_steps=1,
    updates=1,
    memory=0,
    device_memory=0,
)
"""Rates of a small model on a slow machine: what is short at these is not worth a probe."""

SHORT_HOURS = 0.25


def duration_notes(file: ExperimentFile) -> Iterator[str]:
    """Lines about the duration of each trial of a new experiment; Ray must be running.

    A bound on the time says it. Otherwise a run that may be long is probed for some seconds, as
    `rllib-ezm plan` does.

    Args:
        file: Of any algorithm; only EZM is probed, and no sweep.
    """
    if isinstance(file.stop, Mapping) and TIME_TOTAL_S in file.stop:
        yield f"Duration:    at most {duration(file.stop[TIME_TOTAL_S] / 3600)} ({TIME_TOTAL_S})"
        return
    if not isinstance(file.config, EZMConfig) or num_variants(file) > 1:
        return
    guess = forecast(file, QUICK)
    if not guess.has_end or guess.hours < SHORT_HOURS:
        return
    click.echo("Measuring the speed for some seconds ...")
    try:
        rates = probe_as_trial(file.config, PROBE_SECONDS)
    except (UserError, RayError) as error:
        yield f"Duration:    not known ({error})"
        return
    plan = forecast(file, rates)
    yield (
        f"Duration:    about {duration(plan.hours)} on this machine ({plan.env_steps:,.0f} env "
        f"steps, {plan.updates:,.0f} updates); `rllib-ezm plan` says more, --stop ends it earlier"
    )


def duration(hours: float) -> str:
    """In the unit that a person would choose."""
    if hours < 1.0:
        return f"{max(round(60 * hours), 1)} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
