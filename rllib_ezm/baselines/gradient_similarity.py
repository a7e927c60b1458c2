"""The probe of `GradientSimilarity` for RLlib's SAC: do the tasks' gradients agree (Fig. 3)?

config = with_gradient_similarity(on_tasks(SACConfig(), ["dmc:walker-stand", "dmc:walker-walk"]))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.utils.annotations import override
from torch import nn

from rllib_ezm.algorithm.callbacks import (
    DEFAULT_INTERVAL,
    GRADIENT_COSINE,
    PROBES,
    cosine_report,
    preserve_training_state,
)
from rllib_ezm.baselines import HeadPerTask
from rllib_ezm.probes.gradient_similarity import cosines
from rllib_ezm.tasks.multitask import resolve_tasks

_INTERVAL, _NUM_TASKS = "gradient_similarity_interval", "gradient_similarity_tasks"


def with_gradient_similarity(config: SACConfig, interval: int = DEFAULT_INTERVAL) -> SACConfig:
    """Log `probes/gradient_cosine/MODULE/TASK/TASK`; changes and returns the config.

    MODULE is "actor" or "critic"; heads that a task has to itself (`multi_head`) do not count. A
    task's gradient is that of its samples of an update's batch, with SAC's own losses. It leaves
    no trace in the training.

    Args:
        config: Of SAC, after `on_tasks` (and `multi_head`).
        interval: Updates between two measurements; a result has the latest one of its iteration.

    Raises:
        ValueError: If the interval is not positive, or the config is not SAC's own.
    """
    if interval < 1:
        raise ValueError(f"with_gradient_similarity(): interval={interval} must be at least 1.")
    if config.learner_class is not SACTorchLearner:
        raise ValueError(
            f"with_gradient_similarity() probes SAC's own learner, not "
            f"{config.learner_class.__name__}."
        )
    settings = {_INTERVAL: interval, _NUM_TASKS: len(config.env_config["tasks"])}
    return (
        config.learners(learner_class=GradientSimilaritySACLearner)
        .training(learner_config_dict={**config.learner_config_dict, **settings})
        .callbacks(SACGradientSimilarity)
    )


class GradientSimilaritySACLearner(SACTorchLearner):
    """SAC's learner, which measures before an update, every so many of them."""

    @override(SACTorchLearner)
    def build(self) -> None:
        """Builds the learner."""
        super().build()
        self._updates = 0
        self._measured: dict[str, torch.Tensor] = {}

    @override(SACTorchLearner)
    def compute_losses(
        self, *, fwd_out: dict[str, Any], batch: dict[str, Any]
    ) -> dict[str, torch.Tensor]:
        """The losses of the batch."""
        if self._updates % self.config.learner_config_dict[_INTERVAL] == 0:
            self._measured = self.measure(batch[DEFAULT_MODULE_ID])
        self._updates += 1
        return super().compute_losses(fwd_out=fwd_out, batch=batch)

    def take_measured(self) -> dict[str, torch.Tensor]:
        """Cosines [T, T] by module, if they were measured since the last call."""
        measured, self._measured = self._measured, {}
        return measured

    def measure(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Cosines [T, T] by module, of a batch's columns [M, ...]; leaves no trace."""
        with preserve_training_state(self, seed=self._updates):
            return self._measure(batch)

    def _measure(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        num_tasks = self.config.learner_config_dict[_NUM_TASKS]
        task_ids = batch[Columns.OBS][:, -num_tasks:].argmax(dim=1)
        groups = shared_parameters(self.module[DEFAULT_MODULE_ID].unwrapped())
        rows: dict[str, list[torch.Tensor]] = {name: [] for name in groups}
        for task in range(num_tasks):
            self._differentiate({name: x[task_ids == task] for name, x in batch.items()})
            for name, parameters in groups.items():
                gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
                rows[name].append(torch.cat([gradient.flatten() for gradient in gradients]))
        return {name: cosines(torch.stack(gradients)).cpu() for name, gradients in rows.items()}

    def _differentiate(self, batch: dict[str, torch.Tensor]) -> None:
        """Leaves the gradients of SAC's losses in the parameters; the next update clears them."""
        of_module = {DEFAULT_MODULE_ID: batch}
        fwd_out = self.module.forward_train(of_module)
        self.compute_gradients(super().compute_losses(fwd_out=fwd_out, batch=of_module))


def shared_parameters(module: Any) -> dict[str, list[nn.Parameter]]:
    """Parameters of actor and critics that all tasks share."""
    parts: dict[str, Sequence[nn.Module]] = {
        "actor": (module.pi_encoder, module.pi),
        "critic": tuple(
            getattr(module, name)
            for name in ("qf_encoder", "qf", "qf_twin_encoder", "qf_twin")
            if hasattr(module, name)
        ),
    }
    return {
        name: [
            parameter
            for part in modules
            if not isinstance(part, HeadPerTask)
            for parameter in part.parameters()
        ]
        for name, modules in parts.items()
    }


class SACGradientSimilarity(RLlibCallback):
    """Puts what the learner measured into the results, with the number of updates."""

    @override(RLlibCallback)
    def on_train_result(self, *, algorithm: Any, result: dict[str, Any], **kwargs: Any) -> None:
        on_learners = algorithm.learner_group.foreach_learner(
            GradientSimilaritySACLearner.take_measured
        )
        measured = next(iter(on_learners)).get()
        if isinstance(measured, Exception):
            raise measured
        trained = result.get("learners", {}).get(DEFAULT_MODULE_ID, {})
        samples = trained.get("num_module_steps_trained_lifetime", 0)
        result["num_updates_lifetime"] = int(samples // algorithm.config.total_train_batch_size)
        if measured:
            names = [spec.name for spec in resolve_tasks(algorithm.config.env_config["tasks"])]
            matrices = {name: matrix.numpy() for name, matrix in measured.items()}
            result.setdefault(PROBES, {})[GRADIENT_COSINE] = cosine_report(matrices, names)
