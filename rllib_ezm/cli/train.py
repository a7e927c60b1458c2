"""`rllib train file`: train the config of a Python file with Ray Tune."""

from __future__ import annotations

import dataclasses
import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rllib_ezm.cli.arguments import TRIAL_FAILED, check_checkpoint, set_option
from rllib_ezm.cli.interruption import INTERRUPTION
from rllib_ezm.utils.errors import UserError

if TYPE_CHECKING:
    from rllib_ezm.cli.experiment import ExperimentOutcome
    from rllib_ezm.cli.experiment_file import ExperimentFile

CHANGEABLE = ("stop", "checkpoint_minutes", "keep")
"""Options that an experiment may be resumed with, in place of those it was started with."""


@click.group(invoke_without_command=True)
@click.pass_context
def train(ctx: click.Context) -> None:
    """Train an algorithm."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@train.command("file")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--stop",
    "-s",
    metavar="JSON",
    help="""Result keys to bounds, e.g. '{"training_iteration": 10}'; overrides FILE's `stop`.""",
)
@set_option
@click.option(
    "--checkpoint-freq",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Iterations between checkpoints; 0 for none by iterations.",
)
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="A checkpoint at the first result this long after the last one; 0 for none by time.",
)
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Newest checkpoints of a trial to keep, beside the one of the best evaluation; 0: all.",
)
@click.option("--checkpoint-at-end/--no-checkpoint-at-end", default=True, show_default=True)
@click.option(
    "--num-samples",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Trials per point of the config's grid, with seeds that follow each other.",
)
@click.option(
    "--local-dir",
    type=click.Path(path_type=Path),
    default="~/ray_results",
    show_default=True,
    help="Folder of all experiments.",
)
@click.option("--experiment-name", "-n", metavar="NAME", help="Default: name of FILE and the time.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Go on with the experiment in this folder, from its newest whole checkpoints.",
)
@click.option(
    "--restore",
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT",
    help="Start a new run from a checkpoint, also with other settings.",
)
@click.option("--wandb", metavar="PROJECT", help="Log the curves to Weights & Biases as well.")
@click.option(
    "--mlflow", metavar="URI", help="Log the curves to MLflow as well: a URI or a folder."
)
@click.option("--seed", type=click.IntRange(min=0), help="Overrides the config's seed.")
@click.option(
    "--smoke",
    is_flag=True,
    help="Try an EZM config out: tiny network, search, batch and episodes, to the first updates.",
)
@click.option(
    "--ray-num-cpus",
    type=click.IntRange(min=1),
    help="Logical CPUs of the Ray started here. Default: one per core, or as many as one trial "
    "asks for where that is more.",
)
@click.option("--ray-address", help="Use a running cluster; `auto` finds one on this machine.")
@click.option("--verbose", "-v", is_flag=True, help="Show the output of Ray and of all workers.")
@click.pass_context
def train_file(ctx: click.Context, file: Path, **options: Any) -> int:
    """Train the config of a Python FILE with Ray Tune.

    FILE defines `config`, an RLlib AlgorithmConfig (EZM, PPO or any other), and may define `stop`.
    """
    if options["resume"] is not None:
        _refuse_with_resume(ctx)
    from rllib_ezm.cli.experiment_file import load_experiment_file, parse_stop, running_as_script

    if options["stop"] is not None:
        options["stop"] = parse_stop(options["stop"])
    if options["restore"] is not None:
        options["restore"] = str(check_checkpoint(options["restore"]))
    options["commands"] = [shlex.join(["rllib", *(ctx.obj or ())])]
    changes = {name: options[name] for name in CHANGEABLE if _is_typed(ctx, name)}
    file = file.expanduser().resolve()
    with running_as_script(file):
        experiment_file = load_experiment_file(file)
        if options["resume"] is not None:
            from rllib_ezm.cli.experiment import kept_options

            options["resume"] = options["resume"].expanduser().resolve()
            kept = kept_options(options["resume"])
            options |= {"overrides": kept.overrides, "smoke": kept.smoke}
        options["notes"] = [f"Set:         {setting}" for setting in options["overrides"]]
        if options["overrides"]:
            from rllib_ezm.cli.overrides import notes

            changed = experiment_file.overridden(options["overrides"])
            options["notes"] += notes(experiment_file.config, changed.config)
            experiment_file = changed
        if options["smoke"]:
            experiment_file = experiment_file.scaled_down()
        if options["stop"] is not None:
            experiment_file = dataclasses.replace(experiment_file, stop=options["stop"])
        with INTERRUPTION.caught():
            return _run(experiment_file, options, changes)


def _is_typed(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _refuse_with_resume(ctx: click.Context) -> None:
    """Refuse the options that a resumed experiment would have to ignore."""
    still_free = {"file", "resume", "ray_num_cpus", "ray_address", "verbose", *CHANGEABLE}
    for option in ctx.command.params:
        if option.name not in still_free and _is_typed(ctx, str(option.name)):
            raise UserError(
                f"{option.opts[0]} cannot be combined with --resume: an experiment keeps "
                "what it was started with; drop the option, or start a new experiment (with "
                "--restore CHECKPOINT from what it has learned)"
            )


def _run(file: ExperimentFile, options: dict[str, Any], changes: dict[str, Any]) -> int:
    """Train a loaded experiment file and report; return the exit code."""
    from rllib_ezm.cli import cluster, experiment
    from rllib_ezm.cli.estimate import duration_notes
    from rllib_ezm.cli.progress import LIVE

    cluster.set_verbosity(verbose=options["verbose"])
    with cluster.ray_for(
        cluster.trial_resources(file),
        address=options["ray_address"],
        num_cpus=options["ray_num_cpus"],
        verbose=options["verbose"],
    ):
        if options["resume"] is None:
            notes = [*options["notes"], *_restore_notes(file, options["restore"])]
            folder = _new_folder(file, options)
            tuner = experiment.new_tuner(file, folder, experiment.RunOptions.of(options))
            _announce(file, folder, "Training", notes)
            for line in duration_notes(file):
                click.echo(line)
            if file.stop is None:
                click.echo("No stopping condition (`stop` in the file, or --stop): Ctrl-C saves.")
        else:
            folder = options["resume"]
            changes["commands"] = options["commands"]
            resumed = experiment.resume(file, folder, changes)
            if resumed.is_over:
                click.echo("Nothing was left to do: every trial had reached its end (--stop).")
                return _report(file, experiment.outcome(resumed.tuner.get_results()))
            tuner = resumed.tuner
            verb = f"Resuming after {resumed.points.iterations} iterations:"
            _announce(file, folder, verb, [*options["notes"], *resumed.points.messages])
        INTERRUPTION.folder, INTERRUPTION.training = folder, True
        try:
            outcome = experiment.outcome(tuner.fit())
        finally:
            LIVE.stop()
    return _report(file, outcome)


def _restore_notes(file: ExperimentFile, checkpoint: str | None) -> list[str]:
    """What to say of the checkpoint that a new run starts from."""
    from rllib_ezm.cli.resume import restore_point

    if checkpoint is None:
        return []
    point, notes = restore_point(Path(checkpoint), file)
    return [f"Starting from {point.checkpoint} (iteration {point.iteration})", *notes]


def _new_folder(file: ExperimentFile, options: dict[str, Any]) -> Path:
    name = options["experiment_name"] or f"{file.path.stem}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    return (options["local_dir"] / name).expanduser().resolve()


def _announce(file: ExperimentFile, folder: Path, verb: str, notes: list[str]) -> None:
    click.echo(f"{verb} {file.algorithm.__name__} from {file.path}")
    for description in file.descriptions():
        click.echo(f"Setting:     {description}")
    click.echo(f"Results:     {folder}")
    click.echo(f"TensorBoard: {shlex.join(['tensorboard', '--logdir', str(folder)])}")
    for note in notes:
        click.echo(note)


def _report(file: ExperimentFile, outcome: ExperimentOutcome) -> int:
    """Print what the trials left behind and how to go on; return the exit code."""
    for trial in outcome.trials:
        if trial.checkpoint is None:
            click.echo(f"No checkpoint in {trial.folder}")
            continue
        click.echo(f"Checkpoint:  {trial.checkpoint}")
        if _can_evaluate(file):
            click.echo(f"Evaluate:    {shlex.join(['rllib', 'evaluate', str(trial.checkpoint)])}")
    if outcome.failed or outcome.interrupted:
        resume = ["rllib", "train", "file", str(file.path), "--resume", str(outcome.folder)]
        click.echo(f"Go on with:  {shlex.join(resume)}")
    for trial in outcome.trials:  # last, where the eye is
        if trial.failure is not None:
            error_file = trial.folder / "error.txt"
            click.echo(f"Its traceback: {error_file}; workers print with --verbose", err=True)
            click.echo(f"{trial.folder.name} failed: {trial.failure}", err=True)
    if INTERRUPTION.signal is not None and (outcome.failed or outcome.interrupted):
        return INTERRUPTION.exit_code
    return TRIAL_FAILED if outcome.failed else 0


def _can_evaluate(file: ExperimentFile) -> bool:
    """Whether `rllib evaluate` can play what the file trains, see `evaluate_checkpoint`."""
    from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner

    runner = file.config.env_runner_cls
    return runner is not None and issubclass(runner, MultiTaskEnvRunner)
