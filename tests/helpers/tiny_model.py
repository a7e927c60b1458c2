"""World models of a few thousand parameters and random inputs for them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from rllib_ezm.models import WorldModel, WorldModelSpec

OBS_DIM, ACTION_DIM, NUM_TASKS = 5, 3, 2
OBSERVATION_MASK = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0]])
ACTION_MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])


def tiny_spec(**changes: Any) -> WorldModelSpec:
    sizes: dict[str, Any] = {
        "obs_dim": OBS_DIM,
        "action_dim": ACTION_DIM,
        "num_tasks": NUM_TASKS,
        "latent_dim": 8,
        "embedding_dim": 4,
        "action_embedding_dim": 6,
        "num_blocks": 1,
        "num_value_heads": 3,
        "head_dim": 7,
        "projection_dim": 9,
        "num_bins": 11,
        "reward_support": (-10.0, 10.0),
        "value_support": (-50.0, 50.0),
    }
    return WorldModelSpec(**{**sizes, **changes})


def tiny_model(seed: int = 0, **changes: Any) -> WorldModel:
    """A random model in eval mode; what starts at zero or one alike is drawn too."""
    torch.manual_seed(seed)
    spec = tiny_spec(**changes)
    mask = OBSERVATION_MASK if (spec.num_tasks, spec.obs_dim) == OBSERVATION_MASK.shape else None
    model = WorldModel(spec, mask)
    for head in (model.reward_model.head, model.value_policy_model.policy_head):
        torch.nn.init.normal_(head.output.weight, std=0.5)
        torch.nn.init.normal_(head.output.bias, std=0.5)
    for name, statistics in model.named_buffers():
        if name.endswith(("running_mean", "root_mean")):
            torch.nn.init.uniform_(statistics, -0.3, 0.3)
        elif name.endswith(("running_var", "root_var")):
            torch.nn.init.uniform_(statistics, 0.7, 1.3)
    return model.eval()


class Inputs(NamedTuple):
    """Observations [B, K+1, D] and actions [B, K, A], padded dimensions 0, and tasks [B]."""

    observations: torch.Tensor
    actions: torch.Tensor
    task_ids: torch.Tensor


def random_inputs(batch: int = 6, steps: int = 3, seed: int = 1) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    task_ids = torch.arange(batch) % NUM_TASKS
    observations = torch.randn(batch, steps + 1, OBS_DIM, generator=generator)
    actions = torch.rand(batch, steps, ACTION_DIM, generator=generator) * 2 - 1
    return Inputs(
        observations * OBSERVATION_MASK[task_ids, None],
        actions * ACTION_MASK[task_ids, None],
        task_ids,
    )
