"""Cosine similarity of the tasks' gradients, per module (Fig. 3, arXiv:2603.01452)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from rllib_ezm.models.world_model import WorldModel

Groups = Mapping[str, Sequence[nn.Parameter]]


def module_groups(model: WorldModel) -> dict[str, list[nn.Parameter]]:
    """The parameters of the modules that all tasks share, without the task embedding."""
    modules = {
        "representation": model.representation,
        "dynamics": model.dynamics_model,
        "reward": model.reward_model,
        "value_policy": model.value_policy_model,
    }
    return {name: list(module.parameters()) for name, module in modules.items()}


def task_gradients(
    losses: torch.Tensor, task_ids: torch.Tensor, groups: Groups, num_tasks: int
) -> dict[str, torch.Tensor]:
    """Gradient of each task's mean loss: one backward pass per task through one forward pass.

    Args:
        losses: Loss of each sample [B], with its graph. The samples went through the network in
            one batch, so BatchNorm has the statistics of an update.
        task_ids: Task of each sample [B].
        groups: Parameters by the name of their group.
        num_tasks: T.

    Returns:
        For each group the gradients as rows [T, P]; NaN for a task without a sample. They take
        T times the memory of the parameters.
    """
    parameters = [parameter for group in groups.values() for parameter in group]
    sizes = [sum(parameter.numel() for parameter in group) for group in groups.values()]
    gradients = losses.new_full((num_tasks, sum(sizes)), torch.nan)
    present = torch.unique(task_ids).tolist()
    for task in present:
        found = torch.autograd.grad(
            losses[task_ids == task].mean(),
            parameters,
            retain_graph=task != present[-1],
            materialize_grads=True,
        )
        torch.cat([gradient.flatten() for gradient in found], out=gradients[task])
    return dict(zip(groups, gradients.split(sizes, dim=1), strict=True))


def cosines(gradients: torch.Tensor) -> torch.Tensor:
    """Cosine of every two rows [T, P] -> [T, T]; NaN where a row is NaN or zero."""
    unit = gradients / gradients.norm(dim=1, keepdim=True)
    return unit @ unit.T
