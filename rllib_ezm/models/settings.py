"""Settings of the world model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rllib_ezm.utils.settings import FloatRange, SettingsGroup, setting

EmbeddingSite = Literal["rep", "dyn", "rew", "vp"]
EMBEDDING_SITES: tuple[EmbeddingSite, ...] = get_args(EmbeddingSite)

SubNetwork = Literal[
    "representation",
    "dynamics",
    "reward",
    "value_policy",
    "projector",
    "predictor",
    "task_embedding",
]
SUB_NETWORKS: tuple[SubNetwork, ...] = get_args(SubNetwork)
"""Parts of a world model that have parameters, see `WorldModel.sub_networks`."""


@dataclass(frozen=True, kw_only=True)
class WorldModelSettings(SettingsGroup):
    """Sizes and switches of the world model; the defaults are the paper's Table 4."""

    latent_dim: int = setting(512, "H, width of the latent state.", at_least=1)
    embedding_dim: int = setting(128, "E, width of a task's embedding.", at_least=1)
    action_embedding_dim: int = setting(
        64, "Width of the reward model's action encoder.", at_least=1
    )
    num_blocks: int = setting(3, "Residual blocks per trunk.", at_least=1)
    num_value_heads: int = setting(5, "V, value heads of the ensemble.", at_least=1)
    head_dim: int = setting(512, "Hidden width of the reward, value and policy heads.", at_least=1)
    projection_dim: int = setting(
        1024, "Hidden width of the SimSiam projector and predictor.", at_least=1
    )
    num_bins: int = setting(51, "Q, atoms of the categorical supports.", at_least=2)
    reward_support: FloatRange = setting(
        (-299.0, 299.0), "Range of representable rewards per decision; overflow is counted."
    )
    value_support: FloatRange = setting(
        (-299.0, 299.0), "Range of representable discounted returns."
    )
    log_std_min: float = setting(
        -10.0, "Lower bound of the policy's log standard deviation.", note="below log_std_max"
    )
    log_std_max: float = setting(
        2.0, "Upper bound; an untrained policy sits in the middle of the two."
    )
    task_embedding: Sequence[EmbeddingSite] = setting(
        EMBEDDING_SITES,
        "Sub-networks that take the task embedding: representation, dynamics, reward, and value "
        "and policy.",
    )
    normalized_action_dim: int | None = setting(
        None,
        "Action dims that the first LayerNorm of the dynamics covers; further ones enter after it. "
        "None: all. A warm start sets it to those of its checkpoint, so that wider actions leave "
        "the dynamics of the known tasks as they were.",
        at_least=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.log_std_min >= self.log_std_max:
            raise ValueError(
                f"log_std_min {self.log_std_min} must be below log_std_max {self.log_std_max}"
            )
