"""`rllib-ezm inspect`: what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path

import click

from rllib_ezm.cli.arguments import check_checkpoint


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
def inspect(checkpoint: Path) -> None:
    """Check the files of an EZM CHECKPOINT and print what is in it.

    Counters, tasks, buffer fill, settings that differ from the default, sizes and versions. Nothing
    in the checkpoint is executed: no pickle is opened.
    """
    checkpoint = check_checkpoint(checkpoint)
    from rich.console import Console

    from rllib_ezm.cli.cluster import set_verbosity
    from rllib_ezm.cli.inspection import inspect_checkpoint

    set_verbosity(verbose=False)
    for table in inspect_checkpoint(checkpoint).to_rich_tables():
        Console().print(table)
