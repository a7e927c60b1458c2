"""A policy with random weights for two tasks of other observations and actions."""

from __future__ import annotations

from typing import Any

import torch

from rllib_ezm.models.masks import prefix_mask
from rllib_ezm.models.world_model import WorldModel, WorldModelSpec
from rllib_ezm.policy.description import PolicyDescription, PolicyTask
from rllib_ezm.policy.policy import Policy
from rllib_ezm.utils.spaces import TaskSpaces

TASKS = (
    PolicyTask("a", TaskSpaces({"": (3,)}, (1,), (-2.0,), (2.0,), "float32"), 1),
    PolicyTask("b", TaskSpaces({"": (5,)}, (2,), (-1.0, 0.0), (1.0, 3.0), "float32"), 2),
)


def tiny_policy(*, value_reduction: str = "random_pair", num_value_heads: int = 2) -> Policy:
    """Whose weights and statistics are all random: an untrained network has equal values."""
    sizes: dict[str, Any] = {
        "latent_dim": 8,
        "embedding_dim": 4,
        "action_embedding_dim": 4,
        "num_blocks": 1,
        "num_value_heads": num_value_heads,
        "head_dim": 8,
        "projection_dim": 8,
        "num_bins": 11,
        "log_std_max": 0.5,
        "log_std_min": -2.0,
    }
    search = {"num_simulations": 4, "num_candidates": 4, "policy_candidates": 2}
    model = {
        "obs_dims": [3, 5],
        "action_dims": [1, 2],
        "world_model": sizes,
        "planner": "gumbel",
        "search": {**search, "use_gumbel_noise": True},
        "evaluation_search": search,
        "value_reduction": value_reduction,
        "value_clip_min": None,
        "inference_precision": "float32",
    }
    torch.manual_seed(0)
    spec = WorldModelSpec(obs_dim=5, action_dim=2, num_tasks=2, **sizes)
    network = WorldModel(spec, prefix_mask([3, 5]))
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name == "normalizer.observation_mask" or not tensor.is_floating_point():
                continue
            noise = torch.randn_like(tensor)
            tensor.copy_(noise.square() + 0.1 if "var" in name else 0.5 * noise)
    description = PolicyDescription(TASKS, model, "weights.safetensors", {"updates": 0})
    return Policy(description, network.state_dict())
