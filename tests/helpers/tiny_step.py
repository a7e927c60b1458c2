"""A gradient step of a tiny model, and batches for it."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from helpers.tiny_model import ACTION_MASK, OBS_DIM, tiny_model

from rllib_ezm.models.collective import Collective
from rllib_ezm.search import SearchSettings
from rllib_ezm.search.gumbel_planner import GumbelPlanner
from rllib_ezm.update.reanalyzer import Reanalyzer
from rllib_ezm.update.settings import TrainingSettings
from rllib_ezm.update.step import GradientStep, make_optimizer
from rllib_ezm.update.variance_window import VarianceWindow

BATCH, K, N_STEP = 6, 2, 3
STATES = K + N_STEP + 1
SETTINGS = TrainingSettings(unroll_steps=K, td_steps=N_STEP)

SMALL = SearchSettings(num_simulations=6, num_candidates=4, policy_candidates=2)
CASES: dict[str, tuple[SearchSettings, dict[str, Any]]] = {
    "paper": (SMALL, {}),
    "all candidates": (
        dataclasses.replace(SMALL, use_gumbel_noise=True, root_prior="policy"),
        {
            "policy_loss": "distribution",
            "replayed_candidate": True,
            "value_mixing": "search",
            "reanalyze_ratio": 0.3,
        },
    ),
    "age, half of the batch": (
        SMALL,
        {
            "value_mixing": "age",
            "reanalyze_ratio": 0.5,
            "entropy_coeff": 0.01,
            "squashed_entropy": True,
            "grad_clip": None,
        },
    ),
    "minimum of all value heads": (SMALL, {"value_reduction": "min"}),
    # Autocast knows no meta device: the gradient step stays in fp32.
    "targets in half precision": (SMALL, {"value_mixing": "td", "precision": "bfloat16"}),
}


def make_step(
    device: torch.device,
    search: SearchSettings,
    precision: str = "float32",
    value_reduction: str = "random_pair",
    **changes: Any,
) -> GradientStep:
    settings = dataclasses.replace(SETTINGS, **changes)
    model = tiny_model().to(device)
    target = copy.deepcopy(model).requires_grad_(False)
    mask = ACTION_MASK.to(device)
    planner = GumbelPlanner(target, mask, precision=precision, value_reduction=value_reduction)
    reanalyzer = Reanalyzer(
        planner,
        search,
        unroll_steps=K,
        td_steps=N_STEP,
        discount=settings.gamma,
        ratio=settings.reanalyze_ratio,
        replayed_candidate=settings.replayed_candidate,
        best_action_only=settings.policy_loss == "best_action",
    )
    return GradientStep(
        model,
        target,
        make_optimizer(model.parameters(), weight_decay=settings.weight_decay),
        reanalyzer,
        VarianceWindow(2, 0.9).to(device),
        mask,
        ("first", "second"),
        settings,
        Collective(),
    )


def random_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([5, 4, 1, 2, 5, 3])
    step_mask = (torch.arange(STATES - 1) < lengths[:, None]).float()
    task_ids = torch.arange(BATCH) % 2
    actions = torch.rand(BATCH, K + 1, 3, generator=generator) * 1.8 - 0.9
    return {
        "obs": torch.randn(BATCH, STATES, OBS_DIM, generator=generator),
        "actions": actions * ACTION_MASK[task_ids, None],
        "rewards": torch.randn(BATCH, STATES - 1, generator=generator) * step_mask,
        "step_mask": step_mask,
        "terminal": torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0]),
        "task_ids": task_ids,
        "weights": torch.linspace(0.5, 1.0, BATCH),
        "search_values": torch.zeros(BATCH, K + 1),
        "policy_means": torch.zeros(BATCH, K + 1, 3),
        "policy_stds": torch.zeros(BATCH, K + 1, 3),
        "searched_at": torch.arange(BATCH * (K + 1)).view(BATCH, K + 1) % 7,
        "age": torch.arange(BATCH),
    }
