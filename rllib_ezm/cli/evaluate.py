"""`rllib evaluate`: play a checkpoint on all its tasks."""

from __future__ import annotations

import json
from pathlib import Path

import click

from rllib_ezm.cli.arguments import check_checkpoint
from rllib_ezm.tasks.protocol import PROTOCOLS
from rllib_ezm.tasks.rendering import choose_renderer
from rllib_ezm.utils.checkpoint_folder import MANIFEST_FILE
from rllib_ezm.utils.errors import UserError


@click.command()
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
    help="Film one of the episodes of each task there.",
)
@click.option(
    "--num-simulations",
    type=click.IntRange(min=0),
    help="Simulations per search; 0 acts with the policy's mean. Default: as in the "
    "evaluations of the run.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the episodes.")
@click.option(
    "--protocol",
    type=click.Choice(list(PROTOCOLS)),
    help="`benchmark`: falls end an episode; `released`: they do not. Default: as in "
    "the evaluations of the run.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the figures of every episode there as well.",
)
@click.option(
    "--unverified",
    is_flag=True,
    help="Play a checkpoint without checksums: nothing tells whether its weights are damaged.",
)
def evaluate(
    checkpoint: Path,
    episodes: int,
    video: Path | None,
    num_simulations: int | None,
    seed: int | None,
    protocol: str | None,
    json_file: Path | None,
    unverified: bool,
) -> None:
    """Play a CHECKPOINT on all its tasks and print a table of returns and scores.

    CHECKPOINT is a folder written by `rllib train file` or by an algorithm's `save_to_path()`.
    """
    checkpoint = check_checkpoint(checkpoint)
    if not unverified and not (checkpoint / MANIFEST_FILE).exists():
        raise UserError(
            f"{checkpoint} has no checksums ({MANIFEST_FILE}), so nothing tells whether its "
            "weights are those that were written; `rllib train file` writes checksums for every "
            "algorithm. Play it all the same with --unverified"
        )
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise UserError(f"--json: no such folder: {json_file.absolute().parent}")
    if video is not None:
        choose_renderer()  # before MuJoCo is imported
    from rich.console import Console

    from rllib_ezm.algorithm.checkpoint_evaluation import evaluate_checkpoint
    from rllib_ezm.cli.cluster import set_verbosity
    from rllib_ezm.cli.evaluation_progress import EvaluationProgress

    set_verbosity(verbose=False)
    click.echo(f"Loading {checkpoint} ...", err=True)
    with EvaluationProgress() as progress:
        report = evaluate_checkpoint(
            checkpoint,
            episodes=episodes,
            video_dir=video,
            num_simulations=num_simulations,
            seed=seed,
            protocol=protocol,
            on_progress=progress.update,
        )
    Console().print(report.to_rich_table())
    metrics = report.to_metrics_table()
    if metrics is not None:
        Console().print(metrics)
    if json_file is not None:
        origin = {"checkpoint": str(checkpoint), "num_simulations": num_simulations, "seed": seed}
        json_file.write_text(json.dumps(origin | report.to_dict(), indent=2) + "\n")
