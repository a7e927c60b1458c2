"""Settings of the replay buffer (section 4.2, arXiv:2603.01452)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rllib_ezm.replay.columns import ReplayDtype
from rllib_ezm.utils.settings import SettingsGroup, setting


@dataclass(frozen=True, kw_only=True)
class ReplaySettings(SettingsGroup):
    """Sizes, priorities and place of the replay buffer."""

    capacity_per_task: int = setting(
        1_000_000,
        "Observations kept per task.",
        at_least=1,
        note="at least unroll_steps + td_steps + 1",
    )
    independent_replay: bool = setting(
        True, "One ring per task (IER); False: one ring that all tasks share."
    )
    priority_alpha: float = setting(1.0, "Exponent of the priorities.", at_least=0, at_most=1)
    priority_beta: float = setting(
        1.0, "Exponent of the importance weights.", at_least=0, at_most=1
    )
    priority_epsilon: float = setting(
        1e-6,
        "Added to every priority.",
        above=0,
        note="with 0, a transition whose value is exact would never be drawn again",
    )
    min_importance_weight: float = setting(
        0.1, "Floor of the max-normalized importance weights.", at_least=0, at_most=1
    )
    max_replay_bytes: int | None = setting(
        16 * 2**30,
        "Budget in bytes, above which training refuses to start; None: no limit.",
        at_least=1,
    )
    store_buffer_in_checkpoints: bool = setting(True, "Write the buffer into checkpoints.")
    replay_device: Literal["host", "learner"] = setting(
        "host",
        "Where observations, actions and values are: arrays in the memory of the algorithm's "
        'process, or tensors on the device of the "learner" there. Priorities are always on the '
        "host.",
        note='"learner" needs num_learners=0 and num_replay_actors=0',
    )
    replay_dtype: ReplayDtype = setting(
        "float32",
        "Of observations and actions in the buffer; in float16, what is beyond 65504 is clipped.",
    )
    num_replay_actors: int = setting(
        0,
        "Processes that hold the rings of a group of tasks each, possibly on other machines; 0: "
        "all are in the algorithm's process.",
        at_least=0,
        note="at most the number of tasks",
    )
    num_cpus_per_replay_actor: float = setting(1, "Ray's CPUs of each replay actor.", at_least=0)
