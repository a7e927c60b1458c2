"""A training whose updates run on a GPU that was measured elsewhere: `plan --gpu-json`."""

from __future__ import annotations

import dataclasses

from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.algorithm.update_cost import count_update
from rllib_ezm.cli.forecast import GIB, Rates
from rllib_ezm.cli.gpu_figures import CardUpdate, GpuFigures
from rllib_ezm.execution.device_columns import check_free_memory
from rllib_ezm.utils.errors import UserError


def without_gpus(config: EZMConfig) -> EZMConfig:
    """A copy that runs where there is no GPU, and collects and learns in one process."""
    here = config.copy(copy_frozen=False)
    here.learners(num_learners=0, num_gpus_per_learner=0).env_runners(num_gpus_per_env_runner=0)
    here.asynchrony(asynchronous=False, num_reanalyze_workers=0)
    return here


def updates_on(card: GpuFigures, config: EZMConfig) -> CardUpdate:
    """What an update takes on a card that was measured elsewhere.

    Raises:
        UserError: The card's figures lack what is needed, or the replay buffer does not fit on it.
    """
    if config.num_learners > 1:
        raise UserError(
            f"num_learners={config.num_learners}: {card.file} is of one GPU; plan with "
            "--set learners.num_learners=1"
        )
    precisions = {"bfloat16" if p == "auto" else p for p in _precisions(config)}
    mixed = len(precisions) > 1
    update = card.update(
        *count_update(config),
        "float32" if mixed else precisions.pop(),
        compiled=config.compile != "off",
        captured=config.capture,
    )
    check_free_memory(
        config.replay_bytes_on_gpu(), int(card.memory_gib * GIB) - (update.memory or 0)
    )
    if not mixed:
        return update
    text = f"{update.source}; as the precisions of training and search differ, all in float32"
    return dataclasses.replace(update, measured=False, source=text)


def _precisions(config: EZMConfig) -> tuple[str, str]:
    return config.train_precision, config.inference_precision


def with_updates_of(rates: Rates, card: GpuFigures, update: CardUpdate) -> Rates:
    """Rates whose collection was probed here, and whose updates are those of a card."""
    how = "measured" if update.measured else "modeled"
    return dataclasses.replace(
        rates,
        seconds_per_update=update.seconds,
        device_memory=update.memory or 0,
        learning_from=f"{how} on {card.card}, {card.memory_gib:g} GiB ({update.source}):",
    )
