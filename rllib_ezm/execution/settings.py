"""Settings of asynchronous training."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

from rllib_ezm.utils.settings import SettingsGroup, setting


@dataclass(frozen=True)
class ExecutionSettings(SettingsGroup):
    """Which processes work at the same time, and how far apart they may be."""

    asynchronous: bool = setting(
        False, "Collect, reanalyze and learn at the same time, instead of one after the other."
    )
    _: KW_ONLY
    num_reanalyze_workers: int = setting(
        0, "Processes that make the targets; 0: the learners do.", at_least=0
    )
    num_cpus_per_reanalyze_worker: float = setting(
        1, "Ray's CPUs of each reanalyze worker.", at_least=0
    )
    num_gpus_per_reanalyze_worker: float = setting(
        0, "Ray's GPUs of each reanalyze worker; a fraction shares one.", at_least=0
    )
    max_queued_batches: int = setting(
        4,
        "Batches sampled and not yet learned from; bounds the age of targets and priorities.",
        at_least=1,
    )
    max_updates_behind: int = setting(
        50, "Env runners pause where more updates are due than this.", at_least=0
    )
    max_weight_age: int = setting(
        100,
        "Updates that the learners may make while an env runner acts with the weights from before "
        "them; then they wait for it.",
        at_least=1,
        note="at least weight_sync_interval",
    )
    weight_transfer_dtype: Literal["float32", "bfloat16"] = setting(
        "float32",
        "Type of the weights that are sent to env runners and reanalyze workers; with "
        '"bfloat16", matrices travel at half their size.',
    )
