"""Losses of EZ-M, torch only: one pure function per equation."""

from rllib_ezm.losses.consistency import path_consistency_target, temporal_consistency_loss
from rllib_ezm.losses.policy import policy_entropy, policy_loss
from rllib_ezm.losses.reward import reward_loss
from rllib_ezm.losses.value import head_mean_log_softmax, value_loss

__all__ = [
    "head_mean_log_softmax",
    "path_consistency_target",
    "policy_entropy",
    "policy_loss",
    "reward_loss",
    "temporal_consistency_loss",
    "value_loss",
]
