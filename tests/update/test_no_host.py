"""A whole update on the "meta" device, whose tensors have shapes and no values.

Whatever is read back to the host raises there, and so does a tensor that was left on the CPU. What
passes can run on an accelerator without waiting for it, and has static shapes.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
from typing import Any

import pytest
import torch
from helpers.tiny_model import ACTION_MASK, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from rllib_ezm.models.collective import Collective
from rllib_ezm.search import SearchSettings
from rllib_ezm.search.gumbel_planner import GumbelPlanner
from rllib_ezm.update.metric_sums import MetricSums
from rllib_ezm.update.reanalyzer import Reanalyzer
from rllib_ezm.update.settings import TrainingSettings
from rllib_ezm.update.step import GradientStep, make_optimizer
from rllib_ezm.update.variance_window import VarianceWindow

META = torch.device("meta")
BATCH, K, N_STEP = 6, 2, 3
SETTINGS = TrainingSettings(unroll_steps=K, td_steps=N_STEP)


class OnlyOn(TorchDispatchMode):
    """Raises where an operation sees a tensor with elements on another device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.seen = device, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for x in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(x, torch.Tensor):
                assert x.device == self.device, f"{func} of a tensor on {x.device}"
                self.seen += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def fused_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused kernel has a meta version; the optimizer's list of devices lacks it."""
    module = importlib.import_module("torch.optim.optimizer")
    monkeypatch.setattr(module, "_get_fused_kernels_supported_devices", lambda: ["meta"])


def make_step(
    device: torch.device, search: SearchSettings, precision: str = "float32", **changes: Any
) -> GradientStep:
    settings = dataclasses.replace(SETTINGS, **changes)
    model = tiny_model().to(device)
    target = copy.deepcopy(model).requires_grad_(False)
    mask = ACTION_MASK.to(device)
    planner = GumbelPlanner(target, mask, precision=precision)
    reanalyzer = Reanalyzer(
        planner,
        search,
        unroll_steps=K,
        td_steps=N_STEP,
        discount=settings.gamma,
        ratio=settings.reanalyze_ratio,
        replayed_candidate=settings.replayed_candidate,
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


def make_batch(device: torch.device) -> dict[str, torch.Tensor]:
    states = K + N_STEP + 1
    shapes = {
        "obs": (BATCH, states, 5),
        "actions": (BATCH, K + 1, 3),
        "rewards": (BATCH, states - 1),
        "step_mask": (BATCH, states - 1),
        "terminal": (BATCH,),
        "weights": (BATCH,),
        "search_values": (BATCH, K + 1),
        "search_actions": (BATCH, K + 1, 3),
        "age": (BATCH,),
    }
    batch = {name: torch.ones(shape, device=device) for name, shape in shapes.items()}
    return batch | {"task_ids": torch.ones(BATCH, dtype=torch.int64, device=device)}


SMALL = SearchSettings(num_simulations=6, num_candidates=4, policy_candidates=2)
CASES: dict[str, tuple[SearchSettings, dict[str, Any]]] = {
    "paper": (SMALL, {}),
    "all candidates": (
        dataclasses.replace(SMALL, use_gumbel_noise=True, root_prior="policy"),
        {"policy_loss": "distribution", "replayed_candidate": True, "value_mixing": "search"},
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
    # Autocast knows no meta device: the gradient step stays in fp32.
    "targets in half precision": (SMALL, {"value_mixing": "td", "precision": "bfloat16"}),
}


@pytest.mark.usefixtures("fused_on_meta")
@pytest.mark.parametrize("case", CASES)
def test_nothing_of_an_update_comes_to_the_host(case: str) -> None:
    search, changes = CASES[case]
    step, batch = make_step(META, search, **changes), make_batch(META)
    step(batch)  # makes what is made once: the optimizer's moments, constants, the folded view
    sums = MetricSums(())
    with OnlyOn(META) as watched:
        output = step(batch)
        sums.add(output.metrics)
    assert watched.seen > 1000
    assert output.priorities.device == META
    assert output.priorities.shape == (BATCH,)
    assert step.num_updates == 2
    with pytest.raises(RuntimeError, match="meta"):
        step.check_finite(output, batch)  # the reading that is left to its caller


@pytest.mark.usefixtures("fused_on_meta")
def test_what_is_left_on_the_host_is_noticed() -> None:
    step, batch = make_step(META, SMALL), make_batch(META)
    step(batch)
    with pytest.raises(AssertionError, match="of a tensor on cpu"), OnlyOn(META):
        step({**batch, "weights": torch.ones(BATCH)})
