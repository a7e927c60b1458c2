"""How much an update computes: counted on shapes alone, so it takes seconds at any size."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from rllib_ezm.execution.reanalyze_worker import make_reanalyzer
from rllib_ezm.models.collective import Collective
from rllib_ezm.update.settings import TrainingSettings
from rllib_ezm.update.step import GradientStep

META = torch.device("meta")


class UpdateCost(NamedTuple):
    """What one update of all learners together computes.

    Attributes:
        flops: Of its matrix products, targets included.
        dispatches: Operators that PyTorch is asked for without `compile` and `capture`.
    """

    flops: int
    dispatches: int


def count_update(config: Any) -> UpdateCost:
    """Count an update of an `EZMConfig`, made once on tensors that have shapes and no values."""
    tasks = config.get_task_set()
    spaces = {DEFAULT_MODULE_ID: (tasks.observation_space, tasks.action_space)}
    module = config.get_rl_module_spec(spaces=spaces).build().to(META)
    plain = {"train_precision": "float32", "compile": "off"}  # autocast knows no such device
    settings = TrainingSettings(**vars(config.group(TrainingSettings)) | plain)
    step = GradientStep(
        module.model,
        module.target_model,
        _NoStep(module.model.parameters()),
        make_reanalyzer(config, module, module.target_model),
        module.variance_window,
        module.action_mask,
        tasks.names,
        settings,
        Collective(),
    )
    batch = _batch_of_shapes(config, tasks)
    step(batch)  # makes what is made once
    counter, flops = _DispatchCounter(), FlopCounterMode(display=False)
    with counter:
        step(batch)
    with flops:
        step(batch)
    return UpdateCost(flops.get_total_flops(), counter.count)


def _batch_of_shapes(config: Any, tasks: Any) -> dict[str, torch.Tensor]:
    """Columns as in `MultiTaskReplayBuffer.sample`."""
    size, searched = config.total_train_batch_size, config.unroll_steps + 1
    steps = config.unroll_steps + config.td_steps
    dims = tasks.action_dim
    shapes: dict[str, tuple[int, ...]] = {
        "obs": (size, steps + 1, tasks.obs_dim),
        "actions": (size, searched, dims),
        "rewards": (size, steps),
        "step_mask": (size, steps),
        "terminal": (size,),
        "search_values": (size, searched),
        "policy_means": (size, searched, dims),
        "policy_stds": (size, searched, dims),
        "weights": (size,),
    }
    ids = torch.zeros(size, dtype=torch.int64, device=META)
    floats = {name: torch.zeros(*shape, device=META) for name, shape in shapes.items()}
    searched_at = torch.zeros(size, searched, dtype=torch.int64, device=META)
    return {"task_ids": ids, "age": ids, "searched_at": searched_at, **floats}


class _NoStep(torch.optim.SGD):
    """In place of fused Adam, one operator that knows no such device either."""

    def step(self, closure: Any = None) -> Any:
        return None


class _DispatchCounter(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))
