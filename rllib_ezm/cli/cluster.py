"""The Ray that an experiment runs on: what a trial asks of it, and how it is started."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import click
import ray
from ray import tune
from ray.tune.search.variant_generator import generate_variants

from rllib_ezm.cli.interruption import INTERRUPTION, away_from_signals
from rllib_ezm.execution.resources import check_fits
from rllib_ezm.utils.errors import UserError

if TYPE_CHECKING:
    from rllib_ezm.cli.experiment_file import ExperimentFile


def trial_resources(file: ExperimentFile) -> dict[str, float]:
    """Return the most that any one trial asks of Ray, e.g. `{"CPU": 3, "GPU": 1}`.

    Args:
        file: The experiment file; its config may hold Tune search spaces.

    Raises:
        UserError: If the config, or a variant of it where it holds search spaces, is not valid.
    """
    most: dict[str, float] = {}
    for chosen, values in generate_variants(file.config.to_dict()):
        variant = file.algorithm.get_default_config().update_from_dict(values)
        try:
            variant.validate()
        except ValueError as error:
            where = ", ".join(f"{'/'.join(path)}={value!r}" for path, value in chosen.items())
            with_values = f" with {where}" if where else ""
            raise UserError(f"{file.path}: `config`{with_values} is not valid: {error}") from error
        request = cast(
            "tune.PlacementGroupFactory", file.algorithm.default_resource_request(variant)
        )
        for name, amount in request.required_resources.items():
            most[name] = max(amount, most.get(name, 0.0))
    return most


def num_variants(file: ExperimentFile) -> int:
    """How many trials the search spaces of the file's config make."""
    return sum(1 for _ in generate_variants(file.config.to_dict()))


def set_verbosity(*, verbose: bool) -> None:
    """Show all that Ray and Tune print, or only the lines of `ProgressPrinter` and Ray's errors.

    Call it after RLlib has been imported, which sets the level of its logger.

    Args:
        verbose: Whether to show all. The traceback of a failed trial is in its `error.txt` anyway.
    """
    if not verbose:
        for name, level in (("ray", "ERROR"), ("ray.rllib", "ERROR"), ("ray.tune", "CRITICAL")):
            logging.getLogger(name).setLevel(level)
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its tables are printed even at verbose=0


@contextmanager
def ray_for(
    required: dict[str, float], *, address: str | None, num_cpus: int | None, verbose: bool
) -> Iterator[None]:
    """Use the Ray of this process, connect to a cluster, or start one here until the block ends.

    Ray's CPUs are tickets for scheduling, not cores. A trial that asks for more of them than exist
    waits forever without a message, so a local Ray gets as many as one trial asks for, or one per
    core where that is more.

    Args:
        required: What one trial asks for, see `trial_resources`.
        address: A running cluster; None reads `RAY_ADDRESS`, and without it starts Ray here.
        num_cpus: Logical CPUs of a Ray started here.
        verbose: Whether the output of Ray and its workers is shown.

    Raises:
        UserError: If the options contradict each other or the trial cannot be placed.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    logs: dict[str, Any] = {
        "log_to_driver": verbose,
        "logging_level": logging.INFO if verbose else logging.ERROR,
    }
    if ray.is_initialized():
        if address or num_cpus:
            raise UserError(
                "Ray already runs in this process: remove ray.init() from the file, or give "
                "neither --ray-address (RAY_ADDRESS) nor --ray-num-cpus"
            )
        check_fits(required)
        yield
        return
    if address and num_cpus:
        raise UserError(
            f"--ray-num-cpus is for a Ray started on this machine, but {address} is a running "
            "cluster with CPUs of its own: drop --ray-num-cpus or the address"
        )
    click.echo(f"Connecting to Ray at {address} ..." if address else "Starting Ray ...")
    try:
        with away_from_signals():
            if address:
                _connect(address, logs)
            else:
                cpus = num_cpus or max(os.cpu_count() or 1, math.ceil(required.get("CPU", 0.0)))
                ray.init(address="local", num_cpus=cpus, include_dashboard=False, **logs)
        INTERRUPTION.handle()
        if not address:
            check_fits(required)
        yield
    finally:
        ray.shutdown()


def _connect(address: str, logs: dict[str, Any]) -> None:
    try:
        ray.init(address=address, **logs)
    except ConnectionError as error:
        raise UserError(f"no Ray cluster answers at {address}: {error}") from error
