"""`rllib-ezm doctor`: whether this machine can train."""

from __future__ import annotations

from pathlib import Path

import click

from rllib_ezm.cli.arguments import TRIAL_FAILED, set_option
from rllib_ezm.utils.errors import UserError


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@set_option
def doctor(file: Path | None, overrides: tuple[str, ...]) -> int:
    """Check versions, simulator, devices and memory, and an experiment FILE if one is given.

    Exit code 1 if training would fail.
    """
    from rllib_ezm.cli import diagnosis
    from rllib_ezm.cli.cluster import set_verbosity
    from rllib_ezm.cli.experiment_file import load_experiment_file, running_as_script

    set_verbosity(verbose=False)
    if file is None:
        if overrides:
            raise UserError("--set changes settings of a FILE: give one")
        findings = diagnosis.examine()
    else:
        file = file.expanduser().resolve()
        with running_as_script(file):
            findings = diagnosis.examine(load_experiment_file(file).overridden(overrides))
    for line, color in diagnosis.lines(findings):
        click.secho(line, fg=color or None)
    return TRIAL_FAILED if diagnosis.would_fail(findings) else 0
