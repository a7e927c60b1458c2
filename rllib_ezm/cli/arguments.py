"""Exit codes of the commands, and checks of what the user typed that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from rllib_ezm.utils.errors import UserError

TRIAL_FAILED = 1
USER_ERROR = 2

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="GROUP.NAME=VALUE",
    help="Overrides a setting of FILE, e.g. training.replay_ratio=1 or 'tasks=[...]'; repeatable.",
)
"""Of commands that take an experiment file; see `rllib_ezm.cli.overrides`."""


def check_checkpoint(path: Path) -> Path:
    """Return the absolute path of an algorithm's checkpoint, or say which folder to give."""
    path = path.expanduser().resolve()
    if not path.exists():
        raise UserError(f"no such checkpoint: {path}")
    if (path / "rllib_checkpoint.json").is_file():
        return path
    inside = sorted(path.glob("**/checkpoint_*/rllib_checkpoint.json"))
    hint = f"; did you mean {inside[-1].parent}" if inside else ""
    raise UserError(f"{path} is not an algorithm's checkpoint (no rllib_checkpoint.json){hint}")
