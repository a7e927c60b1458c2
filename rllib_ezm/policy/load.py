"""Reading a policy from a folder, and writing one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from rllib_ezm.policy.description import WEIGHTS_FILE, PolicyDescription, read_description
from rllib_ezm.policy.policy import ONLY_TRAINED, Policy
from rllib_ezm.utils.errors import UserError

OF_THE_MODEL = "model."
"""Prefix of the online network's weights in a checkpoint, which holds the target network too."""


def load_policy(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
    planner: type | None = None,
) -> Policy:
    """Load a trained agent to act with it, without Ray; no pickle is opened.

    Args:
        path: A checkpoint of EZ-M, or a folder that `rllib-ezm export` or `save_policy` wrote.
        device: Where it runs.
        seed: Of the search's random numbers.
        planner: The planner's class, of an agent that was trained with one of your own.

    Raises:
        UserError: There is no policy in the folder, a file is damaged, or the planner unknown.
    """
    folder = Path(path).expanduser()
    description = read_description(folder)
    weights = read_weights(folder, description)
    return Policy(description, weights, device=device, seed=seed, planner=planner)


def read_weights(folder: Path, description: PolicyDescription) -> dict[str, torch.Tensor]:
    """The weights of the world model.

    Raises:
        UserError: The file is missing or damaged.
    """
    file = folder / description.weights
    try:
        stored = safetensors.torch.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    return {
        name.removeprefix(OF_THE_MODEL): tensor
        for name, tensor in stored.items()
        if name.startswith(OF_THE_MODEL)
    }


def save_policy(policy: Policy, folder: Path, **metadata: Any) -> None:
    """Write a policy alone: its description and its weights, as small as it can be.

    Args:
        policy: The policy.
        folder: Created; what is in it is overwritten.
        **metadata: Added to its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights: Mapping[str, torch.Tensor] = policy.model.state_dict()
    safetensors.torch.save_file(
        {
            OF_THE_MODEL + name: tensor.detach().cpu().contiguous()
            for name, tensor in weights.items()
            if not name.startswith(ONLY_TRAINED)
        },
        folder / WEIGHTS_FILE,
    )
    description = policy.description
    replace(description, weights=WEIGHTS_FILE, metadata={**description.metadata, **metadata}).write(
        folder
    )
