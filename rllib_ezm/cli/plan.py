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
@click.option(
    "--gpu-json",
    type=click.Path(path_type=Path),
    metavar="JSON_FILE",
    help="Updates are those that benchmarks/gpu.py measured of a GPU; collection is probed.",
)
@click.option("--ray-num-cpus", type=click.IntRange(min=1), help="Logical CPUs of Ray.")
def plan(
    file: Path,
    seconds: float,
    stop: str | None,
    overrides: tuple[str, ...],
    gpu_json: Path | None,
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
        from rllib_ezm.cli import forecast, gpu_forecast
        from rllib_ezm.cli.gpu_figures import GpuFigures

        if not isinstance(experiment_file.config, EZMConfig):
            raise UserError(f"{file}: `config` is not an EZMConfig: its cost cannot be planned")
        cluster.set_verbosity(verbose=False)
        card, here = None, experiment_file
        if gpu_json is not None:
            card = GpuFigures(gpu_json)
            update = gpu_forecast.updates_on(card, experiment_file.config)
            config = gpu_forecast.without_gpus(experiment_file.config)
            here = dataclasses.replace(experiment_file, config=config)
        with cluster.ray_for(
            cluster.trial_resources(here), address=None, num_cpus=ray_num_cpus, verbose=False
        ):
            click.echo(f"Probing {file.name} for {seconds:g} s ...")
            rates = forecast.probe_as_trial(here.config, seconds, learn=card is None)
    if card is not None:
        rates = gpu_forecast.with_updates_of(rates, card, update)
    for line in forecast.forecast(experiment_file, rates).lines():
        click.echo(line)
