"""Reanalyze in a process of its own: targets of replayed segments with the target network."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.actor_manager import FaultAwareApply

from rllib_ezm.execution.weight_transfer import from_transfer_dtype
from rllib_ezm.models.world_model import WorldModel
from rllib_ezm.update.reanalyzer import PREFIX, Reanalyzer, stored_targets
from rllib_ezm.utils.seeding import seed_generators

Batch = dict[str, npt.NDArray[Any]]

STORED = "stored_targets"
"""Column of what a replay buffer is to store, see `stored_targets`; not for the learners."""


class ReanalyzeWorker(FaultAwareApply):
    """Adds the targets to batches, for learners that then need no search of their own.

    Args:
        config: The algorithm's.
        seed: Of the searches' noise; None draws one.
    """

    def __init__(self, config: Any, seed: int | None) -> None:
        self.config = config
        if seed is not None:
            seed_generators(seed)
        tasks = config.get_task_set()
        spaces = {DEFAULT_MODULE_ID: (tasks.observation_space, tasks.action_space)}
        module = config.get_rl_module_spec(spaces=spaces, inference_only=True).build()
        use_gpu = config.num_gpus_per_reanalyze_worker > 0
        self._device = torch.device("cuda" if use_gpu else "cpu")
        module.to(self._device)
        self._model = module.model.eval()
        self._reanalyzer = make_reanalyzer(config, module, self._model)
        self._version: int | None = None

    def reanalyze(self, batch: Batch, weights: ray.ObjectRef, version: int) -> Batch:
        """The columns to add to `batch`: the fields of `Reanalyzed`, with a prefix.

        And `STORED`, what the replay buffer is to store, where not all targets are always fresh.

        Args:
            batch: As `MultiTaskReplayBuffer.sample` returns it.
            weights: The target network's, see `target_weights`.
            version: Of these weights; they are fetched only if this worker has others.
        """
        if version != self._version:
            state = from_transfer_dtype(ray.get(weights))
            self._model.load_state_dict({n: torch.as_tensor(x) for n, x in state.items()})
            self._version = version
        tensors = {name: torch.as_tensor(x).to(self._device) for name, x in batch.items()}
        reanalyzed = self._reanalyzer(tensors)
        columns = {PREFIX + name: x for name, x in reanalyzed._asdict().items()}
        if self._reanalyzer.ratio < 1.0:
            columns[STORED] = stored_targets(reanalyzed, tensors["step_mask"])
        return {name: np.ascontiguousarray(x.float().cpu().numpy()) for name, x in columns.items()}


def make_reanalyzer(config: Any, module: Any, model: WorldModel) -> Reanalyzer:
    """Makes targets with one of a module's networks, as the config sets them.

    Args:
        config: An `EZMConfig`.
        module: An `EZMTorchRLModule`, for its planner and search settings.
        model: Its online or its target network.

    Raises:
        ValueError: The config has no search.
    """
    if module.settings is None:
        raise ValueError("Training needs a search: set num_simulations >= 1.")
    return Reanalyzer(
        module.planner(model),
        module.settings,
        unroll_steps=config.unroll_steps,
        td_steps=config.td_steps,
        discount=config.gamma,
        ratio=config.reanalyze_ratio,
        replayed_candidate=config.replayed_candidate,
        best_action_only=config.policy_loss == "best_action",
    )
