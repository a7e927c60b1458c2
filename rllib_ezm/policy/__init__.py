"""A trained agent without Ray: torch, NumPy and safetensors only."""

from rllib_ezm.policy.load import load_policy
from rllib_ezm.policy.policy import Policy

__all__ = ["Policy", "load_policy"]
