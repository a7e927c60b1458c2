"""EZM's Learner: RLlib's side of a gradient step, which is `update/step.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.annotations import override

from rllib_ezm.algorithm.rl_module import EZMTorchRLModule
from rllib_ezm.execution.reanalyze_worker import make_reanalyzer
from rllib_ezm.models.collective import Collective, TorchCollective, share_statistics
from rllib_ezm.update.captured import CudaRecorder
from rllib_ezm.update.metric_sums import MetricSums
from rllib_ezm.update.settings import TrainingSettings
from rllib_ezm.update.step import GradientStep, make_optimizer
from rllib_ezm.utils.allocator import keep_freed_memory
from rllib_ezm.utils.ray_internals import OpenLearner
from rllib_ezm.utils.seeding import derived_seed, seed_generators

PRIORITIES = "priorities"
STORED_TARGETS = "stored_targets"
REANALYZE_SECONDS = "reanalyze_seconds"
SUMMED = ("support_overflow", "skipped_updates")
"""Metrics that are summed over the updates of an iteration; of the others, the mean is taken."""


class EZMTorchLearner(OpenLearner):
    """Hands RLlib's batches to a `GradientStep`, and its results to RLlib's metrics.

    Several learners take parts of one batch: gradients are averaged, and statistics are those of
    the whole batch, so that all hold the same weights, and the same as one learner would.
    """

    @override(OpenLearner)
    def build(self) -> None:
        keep_freed_memory()
        super().build()
        config, module = self.config, self.ezm_module
        module.model.freeze(config.frozen_networks)
        self.gradient_step = GradientStep(
            module.model,
            module.target_model,
            self.get_optimizer(DEFAULT_MODULE_ID),
            make_reanalyzer(config, module, module.target_model),
            module.variance_window,
            module.action_mask,
            config.get_task_set().names,
            config.group(TrainingSettings),
            self.collective,
        )
        if config.capture and self.device.type == "cuda" and self.collective.size == 1:
            self.gradient_step.capture(CudaRecorder())
        self._metric_sums = MetricSums(SUMMED)

    @property
    def ezm_module(self) -> EZMTorchRLModule:
        """The module that learns."""
        module: EZMTorchRLModule = self.module[DEFAULT_MODULE_ID].unwrapped()
        return module

    @override(OpenLearner)
    def join_learners(self) -> None:
        """Join the other learners, without DDP.

        DDP refuses outputs that no loss term reads, as ablations have, and knows nothing of the
        targets' statistics.
        """
        self.collective: Collective = Collective()
        if self.config.num_learners > 1:
            module = self.ezm_module
            self.collective = TorchCollective()
            self.collective.copy_from_first_(module.state_dict().values())
            share_statistics(module, self.collective)
            if self.config.seed is not None:
                seed_generators(derived_seed(self.config.seed, self.collective.rank))

    @override(OpenLearner)
    def get_parameters(self, module: Any) -> Sequence[torch.nn.Parameter]:
        return [p for p in module.parameters() if p.requires_grad]

    @override(OpenLearner)
    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        parameters = self.get_parameters(self.module[module_id])
        self.register_optimizer(
            module_id=module_id,
            optimizer=make_optimizer(parameters, weight_decay=config.weight_decay),
            params=parameters,
            lr_or_lr_schedule=config.lr,
        )

    @override(OpenLearner)
    def update_on_batch(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        step = self.gradient_step
        output = step(batch)
        self._metric_sums.add(output.metrics)
        if step.num_updates % self.config.metrics_interval == 0:
            step.check_finite(output, batch)
            self._log_metric_sums()
        log = self.metrics.log_value
        log((DEFAULT_MODULE_ID, PRIORITIES), output.priorities.cpu(), reduce="item_series")
        if output.stored_targets is not None:
            stored = output.stored_targets.cpu()
            log((DEFAULT_MODULE_ID, STORED_TARGETS), stored, reduce="item_series")
        log((DEFAULT_MODULE_ID, REANALYZE_SECONDS), output.reanalyze_seconds, reduce="sum")
        return output.loss

    def _log_metric_sums(self) -> None:
        """Give RLlib the metrics of the updates since the last time."""
        for name, value in self._metric_sums.read().items():
            reduce = "sum" if name in SUMMED else "mean"
            self.metrics.log_value((DEFAULT_MODULE_ID, name), value, reduce=reduce)

    @override(OpenLearner)
    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """The loss of a batch, for those who ask RLlib for it; an update computes its own."""
        return self.gradient_step.sample_losses(batch).mean()

    def target_weights(self) -> dict[str, np.ndarray]:
        """What a reanalyze worker needs: the target network without the consistency loss's part."""
        state = self.ezm_module.target_model.state_dict()
        return {
            name: tensor.cpu().numpy()
            for name, tensor in state.items()
            if not name.startswith(("projector.", "predictor."))
        }

    def start_from(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over all weights and statistics of a module; the optimizer is that of a new run."""
        self.ezm_module.load_state_dict(state)

    def reorder_tasks(self, source: Sequence[int]) -> None:
        """Give the tasks other ids: what is kept of task i becomes that of `source[i]`."""
        self.ezm_module.reorder_tasks(source)
        weight = self.ezm_module.model.task_embedding.weight
        for moment in self.get_optimizer(DEFAULT_MODULE_ID).state.get(weight, {}).values():
            if moment.shape == weight.shape:  # the other one counts the steps
                moment.copy_(moment[list(source)])

    def _apply_optimizer_settings(self) -> None:
        """Set `lr` and `weight_decay` of the config in place of those of a restored optimizer.

        A schedule goes on from where the state has brought it: RLlib sets its value after the next
        update, and until then the stored one holds.
        """
        config = self.config
        for group in self.get_optimizer(DEFAULT_MODULE_ID).param_groups:
            group["weight_decay"] = config.weight_decay
            if isinstance(config.lr, int | float):
                group["lr"] = float(config.lr)

    @override(OpenLearner)
    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {
            **super().get_state(*args, **kwargs),
            "num_updates": self.gradient_step.num_updates,
            "num_consecutive_nonfinite": int(self.gradient_step.guard.num_consecutive),
            "metric_sums": self._metric_sums.get_state(),
        }

    @override(OpenLearner)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._apply_optimizer_settings()
        step = self.gradient_step
        step.num_updates = state.get("num_updates", step.num_updates)
        step.guard.num_consecutive.fill_(state.get("num_consecutive_nonfinite", 0))
        if "metric_sums" in state:
            self._metric_sums.set_state(state["metric_sums"])
