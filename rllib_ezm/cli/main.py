"""The commands `rllib` and `rllib-ezm`: train, evaluate or inspect a checkpoint, report on results.

Ray removed its own `rllib` command after release 2.40; this one takes the same files. Ray and
torch are imported inside the commands, so `--help` answers at once. Each command checks what the
user typed, calls the package and prints what it returns: new commands do the same.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from rllib_ezm.tasks.protocol import PROTOCOLS
from rllib_ezm.utils.errors import UserError

if TYPE_CHECKING:
    from rllib_ezm.cli.experiment import ExperimentOutcome
    from rllib_ezm.cli.experiment_file import ExperimentFile

TRIAL_FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 is success, 1 a trial that failed, 2 a mistake of the user (one line on stderr), 130 Ctrl-C.

    Args:
        argv: Arguments without the program's name; None for those of the process.
    """
    program = Path(sys.argv[0]).name
    # RLlib imports dm_control, which warns on a machine without a display.
    warnings.filterwarnings("ignore", message=".*DISPLAY environment variable is missing")
    try:
        code = cli.main(args=argv, prog_name=program, standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else program
        return _fail(program, f"{error.format_message()} (see {command} --help)")
    except click.ClickException as error:
        return _fail(program, error.format_message())
    except UserError as error:
        return _fail(program, str(error))
    except click.Abort:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    return code or 0


def run_example(file: str) -> NoReturn:
    """Train the calling file as `rllib train file FILE ...` does, with the process's arguments.

    For `if __name__ == "__main__": run_example(__file__)` at the end of an experiment file.

    Args:
        file: The file's `__file__`.
    """
    sys.exit(main(["train", "file", file, *sys.argv[1:]]))


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@click.version_option(package_name="rllib-ezm")
def cli() -> None:
    """Train and evaluate RLlib algorithms, EfficientZero-Multitask among them."""


@cli.group(no_args_is_help=False)
def train() -> None:
    """Train an algorithm."""


@train.command("file")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--stop",
    "-s",
    metavar="JSON",
    help="""Result keys to bounds, e.g. '{"training_iteration": 10}'; overrides FILE's `stop`.""",
)
@click.option(
    "--checkpoint-freq",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Iterations between checkpoints; 0 for none on the way.",
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
    "--resume", type=click.Path(path_type=Path), help="Go on with this experiment's folder."
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

    stop = None if options["stop"] is None else parse_stop(options["stop"])
    file = file.expanduser().resolve()
    with running_as_script(file):
        experiment_file = load_experiment_file(file)
        if options["smoke"]:
            experiment_file = experiment_file.scaled_down()
        if stop is not None:
            experiment_file = dataclasses.replace(experiment_file, stop=stop)
        return _run(experiment_file, options)


@cli.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--episodes",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Episodes per task.",
)
@click.option(
    "--video",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write videos of the tasks there.",
)
@click.option(
    "--num-simulations",
    type=click.IntRange(min=0),
    help="Simulations per search; 0 acts with the policy's mean. Default: as in training.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the episodes.")
@click.option(
    "--protocol",
    type=click.Choice(list(PROTOCOLS)),
    help="`benchmark`: falls end an episode; `released`: they do not. Default: as in training.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the figures of every episode there as well.",
)
def evaluate(
    checkpoint: Path,
    episodes: int,
    video: Path | None,
    num_simulations: int | None,
    seed: int | None,
    protocol: str | None,
    json_file: Path | None,
) -> None:
    """Play a CHECKPOINT on all its tasks and print a table of returns and scores.

    CHECKPOINT is a folder written by `rllib train file` or by an algorithm's `save_to_path()`.
    """
    checkpoint = _check_checkpoint(checkpoint)
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise UserError(f"--json: no such folder: {json_file.absolute().parent}")
    from rich.console import Console

    from rllib_ezm.algorithm.evaluation import evaluate_checkpoint
    from rllib_ezm.cli.cluster import set_verbosity

    set_verbosity(verbose=False)
    report = evaluate_checkpoint(
        checkpoint,
        episodes=episodes,
        video_dir=video,
        num_simulations=num_simulations,
        seed=seed,
        protocol=protocol,
    )
    Console().print(report.to_rich_table())
    if json_file is not None:
        origin = {"checkpoint": str(checkpoint), "num_simulations": num_simulations, "seed": seed}
        json_file.write_text(json.dumps(origin | report.to_dict(), indent=2) + "\n")


@cli.command()
@click.argument("dirs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="report",
    show_default=True,
    help="Folder for report.md, its tables (CSV) and figures (PNG, SVG).",
)
@click.option(
    "--statistic",
    type=click.Choice(["last", "best", "area"]),
    default="last",
    show_default=True,
    help="Of each run: mean of the last 10 % of its evaluations, its best one, or the mean of all.",
)
@click.option(
    "--max-env-steps",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Compare after N env steps per task: leave out what comes later; interpolate if need be.",
)
@click.option("--reference", metavar="NAME", help="Compare the other variants with this one.")
@click.option(
    "--group-by",
    multiple=True,
    metavar="FIELD",
    help="Config field that tells variants apart (a/b for a nested one; also `experiment` and "
    "`num_tasks`); repeatable. Default: the experiment's name without _seedN, and the fields of "
    "its grid.",
)
@click.option("--published", is_flag=True, help="Show published scores of the same tasks as well.")
def report(dirs: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Write tables and figures with confidence intervals from the results in DIR...

    DIR is the folder of an experiment, or a folder of such.
    """
    from rllib_ezm.report import require_extra

    require_extra()
    from rllib_ezm.report.write import write_report

    click.echo(f"Report: {write_report(dirs, out, **options)}")


@cli.command("inspect")
@click.argument("checkpoint", type=click.Path(path_type=Path))
def inspect_command(checkpoint: Path) -> None:
    """Check the files of an EZM CHECKPOINT and print what is in it.

    Counters, tasks, buffer fill, settings that differ from the default, sizes and versions. RLlib
    keeps some of it as pickles: inspect only checkpoints that you trust.
    """
    checkpoint = _check_checkpoint(checkpoint)
    from rich.console import Console

    from rllib_ezm.cli.cluster import set_verbosity
    from rllib_ezm.cli.inspection import inspect_checkpoint

    set_verbosity(verbose=False)
    for table in inspect_checkpoint(checkpoint).to_rich_tables():
        Console().print(table)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
def doctor(file: Path | None) -> int:
    """Check versions, simulator, devices and memory, and an experiment FILE if one is given.

    Exit code 1 if training would fail.
    """
    from rllib_ezm.cli import diagnosis as doctor
    from rllib_ezm.cli.cluster import set_verbosity
    from rllib_ezm.cli.experiment_file import load_experiment_file, running_as_script

    set_verbosity(verbose=False)
    if file is None:
        findings = doctor.examine()
    else:
        file = file.expanduser().resolve()
        with running_as_script(file):
            findings = doctor.examine(load_experiment_file(file))
    for line, color in doctor.lines(findings):
        click.secho(line, fg=color or None)
    return TRIAL_FAILED if doctor.would_fail(findings) else 0


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--seconds", type=click.FloatRange(min=1), default=60, show_default=True)
@click.option("--stop", "-s", metavar="JSON", help="Overrides FILE's `stop`.")
@click.option("--ray-num-cpus", type=click.IntRange(min=1), help="Logical CPUs of Ray.")
def plan(file: Path, seconds: float, stop: str | None, ray_num_cpus: int | None) -> None:
    """Probe an EZM FILE for a minute and print what its training will take on this machine.

    Env steps and updates per second, memory, and the hours until its `stop`.
    """
    from rllib_ezm.cli import cluster
    from rllib_ezm.cli.experiment_file import load_experiment_file, parse_stop, running_as_script

    file = file.expanduser().resolve()
    with running_as_script(file):
        experiment_file = load_experiment_file(file)
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


def _fail(program: str, message: str) -> int:
    click.echo(f"{program}: error: {' '.join(message.split())}", err=True)
    return USER_ERROR


def _refuse_with_resume(ctx: click.Context) -> None:
    """Refuse the options that a resumed experiment would have to ignore."""
    typed = click.core.ParameterSource.COMMANDLINE
    still_free = {"file", "resume", "ray_num_cpus", "ray_address", "verbose"}
    for name in ctx.params:
        if name not in still_free and ctx.get_parameter_source(name) is typed:
            raise UserError(
                f"--{name.replace('_', '-')} cannot be combined with --resume: an experiment keeps "
                "what it was started with; drop the option, or start a new experiment"
            )


def _run(file: ExperimentFile, options: dict[str, Any]) -> int:
    """Train a loaded experiment file and report; return the exit code."""
    from rllib_ezm.cli import cluster, experiment

    cluster.set_verbosity(verbose=options["verbose"])
    with cluster.ray_for(
        cluster.trial_resources(file),
        address=options["ray_address"],
        num_cpus=options["ray_num_cpus"],
        verbose=options["verbose"],
    ):
        if options["resume"] is None:
            run_options = experiment.RunOptions(
                **{f.name: options[f.name] for f in dataclasses.fields(experiment.RunOptions)}
            )
            folder = _new_folder(file, options)
            tuner = experiment.new_tuner(file, folder, run_options)
            done_before = 0
        else:
            folder = options["resume"].expanduser().resolve()
            tuner = experiment.resumed_tuner(file, folder)
            done_before = experiment.outcome(tuner.get_results()).iterations
        _announce(file, folder, done_before)
        outcome = experiment.outcome(tuner.fit())
    if outcome.iterations == done_before and not (outcome.failed or outcome.interrupted):
        click.echo("Nothing was left to do: every trial had reached its stopping condition.")
    return _report(file, outcome)


def _new_folder(file: ExperimentFile, options: dict[str, Any]) -> Path:
    name = options["experiment_name"] or f"{file.path.stem}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    return (options["local_dir"] / name).expanduser().resolve()


def _announce(file: ExperimentFile, folder: Path, done_before: int) -> None:
    verb = f"Resuming after {done_before} iterations:" if done_before else "Training"
    click.echo(f"{verb} {file.algorithm.__name__} from {file.path}")
    for description in file.descriptions():
        click.echo(f"Setting:     {description}")
    click.echo(f"Results:     {folder}")
    click.echo(f"TensorBoard: {shlex.join(['tensorboard', '--logdir', str(folder)])}")
    if file.stop is None:
        click.echo("No stopping condition (`stop` in the file, or --stop): Ctrl-C ends it.")


def _report(file: ExperimentFile, outcome: ExperimentOutcome) -> int:
    """Print what the trials left behind and how to go on; return the exit code."""
    for trial in outcome.trials:
        if trial.failure is not None:
            error_file = trial.folder / "error.txt"
            click.echo(f"{trial.folder.name} failed: {trial.failure} ({error_file})", err=True)
            click.echo("With --verbose, the output of the workers is shown as well.", err=True)
        if trial.checkpoint is None:
            click.echo(f"No checkpoint in {trial.folder}")
            continue
        click.echo(f"Checkpoint:  {trial.checkpoint}")
        if _can_evaluate(file):
            click.echo(f"Evaluate:    {shlex.join(['rllib', 'evaluate', str(trial.checkpoint)])}")
    if outcome.failed or outcome.interrupted:
        resume = ["rllib", "train", "file", str(file.path), "--resume", str(outcome.folder)]
        click.echo(f"Go on with:  {shlex.join(resume)}")
    if outcome.failed:
        return TRIAL_FAILED
    return INTERRUPTED if outcome.interrupted else 0


def _can_evaluate(file: ExperimentFile) -> bool:
    """Whether `rllib evaluate` can play what the file trains, see `evaluate_checkpoint`."""
    from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner

    runner = file.config.env_runner_cls
    return runner is not None and issubclass(runner, MultiTaskEnvRunner)


def _check_checkpoint(path: Path) -> Path:
    """Return the absolute path of an algorithm's checkpoint, or say which folder to give."""
    path = path.expanduser().resolve()
    if not path.exists():
        raise UserError(f"no such checkpoint: {path}")
    if (path / "rllib_checkpoint.json").is_file():
        return path
    inside = sorted(path.glob("**/checkpoint_*/rllib_checkpoint.json"))
    hint = f"; did you mean {inside[-1].parent}" if inside else ""
    raise UserError(f"{path} is not an algorithm's checkpoint (no rllib_checkpoint.json){hint}")
