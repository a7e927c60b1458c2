"""EZM's RLModule: search to act, K-step unroll to train."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import safetensors.numpy
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.utils.annotations import override

from rllib_ezm.algorithm.cross_task import ACTING_TASK
from rllib_ezm.models.masks import prefix_mask
from rllib_ezm.models.world_model import WorldModel, WorldModelSpec
from rllib_ezm.search.improved_policy import improved_policy
from rllib_ezm.search.registry import make_planner
from rllib_ezm.search.settings import SearchSettings, search_settings
from rllib_ezm.search.types import Plan, Planner
from rllib_ezm.update.variance_window import VarianceWindow
from rllib_ezm.utils.checkpoint_folder import resolve

SEARCH_VALUE = "search_value"
POLICY_MEAN = "policy_mean"
POLICY_STD = "policy_std"

WEIGHTS_FILE = "weights.safetensors"
"""The module's weights in its folder of a checkpoint."""


class EZMTorchRLModule(TorchRLModule, InferenceOnlyAPI):
    """World model, target network and search of EZ-M.

    Acting (`forward_exploration`, `forward_inference`) maps the observation dict `obs` [B, D],
    `task_id` [B], `action_mask` [B, A] to `actions` [B, A] in [-1, 1]; the targets that the search
    gives, `SEARCH_VALUE` [B] and `POLICY_MEAN`, `POLICY_STD` [B, A], travel with the episodes.
    Training does not go through the module: see `update/step.py`.
    """

    @override(TorchRLModule)
    def setup(self) -> None:
        config = self.model_config
        observation_mask = prefix_mask(config["obs_dims"])
        num_tasks, obs_dim = observation_mask.shape
        self.register_buffer("action_mask", prefix_mask(config["action_dims"]), persistent=False)
        spec = WorldModelSpec(
            obs_dim=obs_dim,
            action_dim=self.action_mask.shape[1],
            num_tasks=num_tasks,
            **config["world_model"],
        )
        self.model = WorldModel(spec, observation_mask)
        self.target_model = copy.deepcopy(self.model).requires_grad_(False)
        self.variance_window = VarianceWindow(num_tasks, config["variance_window_decay"])
        if self.inference_only:
            # RLlib 2.60 removes only top-level attributes of `get_non_inference_attributes`.
            del self.model.projector, self.model.predictor
        self.random_steps: int = config["num_random_steps"]
        self._best_action_only = config["policy_loss"] == "best_action"
        self._planner = self.planner(self.model)
        self.settings = search_settings(config["search"])
        self.evaluation_settings = search_settings(config["evaluation_search"])

    @override(InferenceOnlyAPI)
    def get_non_inference_attributes(self) -> list[str]:
        """The learner's own parts: 3.2 M of 16.1 M parameters, and the target network."""
        return ["target_model", "variance_window", "model.projector", "model.predictor"]

    @torch.no_grad()
    def reorder_tasks(self, source: Sequence[int]) -> None:
        """Give the tasks other ids: row i of all that is kept per task becomes row `source[i]`."""
        window = self.variance_window
        per_task = [window.low, window.high]
        for model in (self.model, self.target_model):
            per_task += [model.task_embedding.weight, model.normalizer.observation_mask]
        for rows in per_task:
            rows.copy_(rows[list(source)])

    @override(TorchRLModule)
    def save_to_path(
        self,
        path: str | Path | None = None,
        *,
        state: dict[str, Any] | None = None,
        filesystem: pyarrow.fs.FileSystem | None = None,
        use_msgpack: bool = False,
    ) -> str:
        """RLlib's files, but the weights in `WEIGHTS_FILE`, which can be read without unpickling.

        For inference without RLlib: `safetensors.torch.load_file(folder / WEIGHTS_FILE)`.
        """
        weights = self.get_state() if state is None else state
        disk, place = resolve(tempfile.mkdtemp() if path is None else path, filesystem)
        super().save_to_path(
            place, state={"weights": WEIGHTS_FILE}, filesystem=disk, use_msgpack=use_msgpack
        )
        arrays = {name: np.asarray(array, order="C") for name, array in weights.items()}
        with disk.open_output_stream(f"{place}/{WEIGHTS_FILE}") as file:
            file.write(safetensors.numpy.save(arrays))
        return place

    @override(TorchRLModule)
    def restore_from_path(
        self,
        path: str | Path,
        *,
        component: str | None = None,
        filesystem: pyarrow.fs.FileSystem | None = None,
        **kwargs: Any,
    ) -> None:
        """Takes over the weights of a folder that `save_to_path` wrote."""
        if component is not None:
            raise ValueError(f"The module has no component {component!r} to restore.")
        disk, place = resolve(path, filesystem)
        with disk.open_input_stream(f"{place}/{WEIGHTS_FILE}") as file:
            self.set_state(safetensors.numpy.load(file.read()))

    def planner(self, model: WorldModel) -> Planner:
        """The config's planner over the online or the target network."""
        return make_planner(self.model_config, model, self.action_mask)

    @override(TorchRLModule)
    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        plan = self._plan(batch, self.settings)
        action = plan.action
        if ACTING_TASK in batch:
            action = self._borrow(action, batch)
        if kwargs.get("t", self.random_steps) < self.random_steps:
            mask = self.action_mask[batch[Columns.OBS]["task_id"].long()]
            action = (2.0 * torch.rand_like(action) - 1.0) * mask
        return self._to_columns(action, plan)

    @override(TorchRLModule)
    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        plan = self._plan(batch, self.evaluation_settings)
        return self._to_columns(plan.action, plan)

    def _plan(self, batch: dict[str, Any], settings: SearchSettings | None) -> Plan:
        observations = batch[Columns.OBS]
        task_ids = observations["task_id"].long()
        inference = self._planner.root(observations["obs"].float(), task_ids)
        return self._planner.plan(inference.root, task_ids, settings)

    def _borrow(self, action: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
        """Actions [B, A] with those rows replaced in which another task's policy acts."""
        observations, acting = batch[Columns.OBS], batch[ACTING_TASK]
        rows = torch.nonzero(acting != observations["task_id"]).flatten()
        if not len(rows):
            return action
        borrowing = {"obs": observations["obs"][rows], "task_id": acting[rows]}
        other = self._plan({Columns.OBS: borrowing}, self.settings).action
        return action.index_copy(0, rows, other)

    def _to_columns(self, action: torch.Tensor, plan: Plan) -> dict[str, Any]:
        policy = improved_policy(plan, best_action_only=self._best_action_only)
        return {
            Columns.ACTIONS: action,
            SEARCH_VALUE: plan.value,
            POLICY_MEAN: policy.mean,
            POLICY_STD: policy.std,
        }
