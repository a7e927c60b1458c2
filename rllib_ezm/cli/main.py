"""The commands `rllib` and `rllib-ezm`: the group that holds them, and how errors end them.

Ray removed its own `rllib` command after release 2.40; this one takes the same files. One module of
this package per command; Ray and torch are imported inside the commands, so that `--help` answers
at once. Each command checks what the user typed, calls the package and prints what it returns.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from rllib_ezm.cli.arguments import USER_ERROR
from rllib_ezm.cli.doctor import doctor
from rllib_ezm.cli.evaluate import evaluate
from rllib_ezm.cli.export import export
from rllib_ezm.cli.inspect import inspect
from rllib_ezm.cli.interruption import INTERRUPTION
from rllib_ezm.cli.plan import plan
from rllib_ezm.cli.report import report
from rllib_ezm.cli.train import train
from rllib_ezm.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 is success, 1 a trial that failed, 2 a mistake of the user (one line on stderr), 130 Ctrl-C,
    143 SIGTERM, 129 SIGHUP.

    Args:
        argv: Arguments without the program's name; None for those of the process.
    """
    program = Path(sys.argv[0]).name
    arguments = sys.argv[1:] if argv is None else list(argv)
    # RLlib imports dm_control, which warns on a machine without a display.
    warnings.filterwarnings("ignore", message=".*DISPLAY environment variable is missing")
    try:
        code = cli.main(args=arguments, prog_name=program, standalone_mode=False, obj=arguments)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else program
        return _fail(program, f"{error.format_message()} (see {command} --help)")
    except click.ClickException as error:
        return _fail(program, error.format_message())
    except UserError as error:
        return _fail(program, str(error))
    except click.Abort:
        click.echo("interrupted", err=True)
        return INTERRUPTION.exit_code
    return code or 0


def run_example(file: str) -> NoReturn:
    """Train the calling file as `rllib train file FILE ...` does, with the process's arguments.

    For `if __name__ == "__main__": run_example(__file__)` at the end of an experiment file.

    Args:
        file: The file's `__file__`.
    """
    sys.exit(main(["train", "file", file, *sys.argv[1:]]))


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(package_name="rllib-ezm")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Train and evaluate RLlib algorithms, EfficientZero-Multitask among them."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for command in (train, evaluate, export, report, inspect, doctor, plan):
    cli.add_command(command)


def _fail(program: str, message: str) -> int:
    click.echo(f"{program}: error: {' '.join(message.split())}", err=True)
    return USER_ERROR
