"""An update as the learner makes it, without Ray: sizes, random batches, the gradient step."""

from __future__ import annotations

import copy
from typing import Any

import torch

from rllib_ezm.models import WorldModel, WorldModelSpec
from rllib_ezm.models.collective import Collective
from rllib_ezm.search import GumbelPlanner, SearchSettings
from rllib_ezm.update.reanalyzer import Reanalyzer
from rllib_ezm.update.settings import TrainingSettings
from rllib_ezm.update.step import GradientStep, make_optimizer
from rllib_ezm.update.variance_window import VarianceWindow

HARD = WorldModelSpec(obs_dim=177, action_dim=61, num_tasks=14)
"""HumanoidBench-Hard at the paper's sizes: 16 M parameters."""

MEDIUM = WorldModelSpec(obs_dim=51, action_dim=19, num_tasks=9)
"""HumanoidBench-Medium at the paper's sizes."""

TINY = WorldModelSpec(
    obs_dim=6,
    action_dim=2,
    num_tasks=3,
    latent_dim=16,
    embedding_dim=4,
    action_embedding_dim=4,
    num_blocks=1,
    head_dim=16,
    projection_dim=16,
    num_bins=11,
)
"""To try a script out."""


def random_batch(
    spec: WorldModelSpec, size: int, settings: TrainingSettings, device: torch.device
) -> dict[str, torch.Tensor]:
    """Random full segments, columns as in `MultiTaskReplayBuffer.sample`, made on the CPU."""
    unroll, steps = settings.unroll_steps, settings.unroll_steps + settings.td_steps
    columns = {
        "obs": torch.randn(size, steps + 1, spec.obs_dim),
        "actions": torch.rand(size, steps, spec.action_dim) * 2.0 - 1.0,
        "rewards": torch.rand(size, steps),
        "step_mask": torch.ones(size, steps),
        "terminal": torch.zeros(size),
        "task_ids": torch.arange(size) % spec.num_tasks,
        "search_values": torch.zeros(size, unroll + 1),
        "policy_means": torch.zeros(size, unroll + 1, spec.action_dim),
        "policy_stds": torch.zeros(size, unroll + 1, spec.action_dim),
        "searched_at": torch.zeros(size, unroll + 1, dtype=torch.int64),
        "weights": torch.ones(size),
        "age": torch.zeros(size, dtype=torch.int64),
    }
    return {name: column.to(device) for name, column in columns.items()}


def make_step(
    spec: WorldModelSpec,
    search: SearchSettings,
    precision: Any = "float32",
    compile_mode: Any = "off",
    device: torch.device | str = "cpu",
    value_reduction: str = "random_pair",
    dtype: torch.dtype = torch.float32,
) -> GradientStep:
    """A gradient step with the weights that seed 0 gives, whatever the device."""
    torch.manual_seed(0)
    settings = TrainingSettings(train_precision=precision, compile=compile_mode)
    model = WorldModel(spec).to(device=device, dtype=dtype)
    target = copy.deepcopy(model).requires_grad_(False)
    mask = torch.ones(spec.num_tasks, spec.action_dim, device=device, dtype=dtype)
    planner = GumbelPlanner(target, mask, precision=precision, value_reduction=value_reduction)
    optimizer = make_optimizer(model.parameters(), weight_decay=settings.weight_decay)
    optimizer.param_groups[0]["lr"] = 1e-4
    reanalyzer = Reanalyzer(
        planner,
        search,
        unroll_steps=settings.unroll_steps,
        td_steps=settings.td_steps,
        discount=settings.gamma,
    )
    window = VarianceWindow(spec.num_tasks, settings.variance_window_decay).to(device)
    names = [f"task {number}" for number in range(spec.num_tasks)]
    return GradientStep(
        model, target, optimizer, reanalyzer, window, mask, names, settings, Collective()
    )
