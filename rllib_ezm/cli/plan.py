"""`rllib-ezm plan`: what a training will take on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from rllib_ezm.cli.arguments import set_option
from rllib_ezm.utils.errors import UserError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--seconds", type=click.FloatRange(min=1), default=60, show_default=True)
@click.option("--stop", "-s", metavar="JSON", help="Overrides FILE's `stop`.")
@set_option
@click.option("--ray-num-cpus", type=click.IntRange(min=1), help="Logical CPUs of Ray.")
def plan(
    file: Path,
    seconds: float,
    stop: str | None,
    overrides: tuple[str, ...],
    ray_num_cpus: int | None,
) -> None:
    """Probe an EZM FILE for a minute and print what its training will take on this machine.

    Env steps and updates per second, memory, and the hours until its `stop`.
    """
    from rllib_ezm.cli import cluster
    from rllib_ezm.cli.experiment_file import load_experiment_file, parse_stop, running_as_script

    file = file.expanduser().resolve()
    with running_as_script(file):
        experiment_file = load_experiment_file(file).overridden(overrides)
        if stop is not None:
            experiment_file = dataclasses.replace(experiment_file, stop=parse_stop(stop))
        from rllib_ezm.algorithm.config import EZMConfig
        from rllib_ezm.cli import forecast

        if not isinstance(experiment_file.config, EZMConfig):
            raise UserError(f"{file}: `config` is not an EZMConfig: its cost cannot be planned")
        cluster.set_verbosity(verbose=False)
        with cluster.ray_for(
            cluster.trial_resources(experiment_file),
            address=None,
            num_cpus=ray_num_cpus,
            verbose=False,
        ):
            click.echo(f"Probing {file.name} for {seconds:g} s ...")
            rates = forecast.probe_as_trial(experiment_file.config, seconds)
    for line in forecast.forecast(experiment_file, rates).lines():
        click.echo(line)
