"""RLlib callbacks that probe an EZM run: `config.callbacks([GradientSimilarity, ModelErrorProbe])`.

Another interval: `config.callbacks(functools.partial(GradientSimilarity, interval=100))`. A probe
draws its own batch from the replay buffer and leaves no trace in the training: with and without
it, a seeded run has the same weights, statistics, samples and metrics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner import Learner
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rllib_ezm.probes.gradient_similarity import cosines, module_groups, task_gradients
from rllib_ezm.probes.model_errors import model_errors

if TYPE_CHECKING:
    from rllib_ezm.algorithm.learner import EZMTorchLearner

PROBES = "probes"
GRADIENT_COSINE = "gradient_cosine"
DEFAULT_INTERVAL = 500


class Probe(RLlibCallback):
    """Measures something on a replay batch, at the end of an iteration, every so many updates.

    Results go to `probes/...` of the iteration's result; the time it took to `probes/seconds/...`.

    Args:
        interval: Updates between two measurements, at most one per iteration. The first iteration
            after a restore measures in any case.
        batch_size: Samples; None for as many as an update has.

    Raises:
        ValueError: If a number is not positive.
    """

    name: str

    def __init__(self, interval: int = DEFAULT_INTERVAL, batch_size: int | None = None) -> None:
        super().__init__()
        for name, value in (("interval", interval), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise ValueError(f"{type(self).__name__}: {name}={value} must be at least 1.")
        self.interval, self.batch_size = interval, batch_size
        self._intervals_measured = 0

    @override(RLlibCallback)
    def on_algorithm_init(self, *, algorithm: Algorithm, **kwargs: Any) -> None:
        from rllib_ezm.algorithm.ezm import EZM

        if not isinstance(algorithm, EZM):
            raise ValueError(f"{type(self).__name__} probes EZM, not {type(algorithm).__name__}.")

    @override(RLlibCallback)
    def on_train_result(self, *, algorithm: Any, result: dict[str, Any], **kwargs: Any) -> None:
        intervals = algorithm.num_updates // self.interval
        if intervals == self._intervals_measured:
            return
        self._intervals_measured = intervals
        start = time.perf_counter()
        config = algorithm.config
        seed = (config.seed or 0, algorithm.num_updates)
        batch = algorithm.replay_buffer.peek(
            self.batch_size or config.total_train_batch_size, np.random.default_rng(seed)
        )
        on_learners = algorithm.learner_group.foreach_learner(
            measure, probe=type(self), batch=batch, seed=algorithm.num_updates
        )
        measured = next(iter(on_learners)).get()
        if isinstance(measured, Exception):
            raise measured
        probes = result.setdefault(PROBES, {})
        probes |= self.report(measured, config.get_task_set().names)
        seconds = time.perf_counter() - start
        probes["seconds"] = probes.get("seconds", {}) | {self.name: seconds}

    @staticmethod
    def on_learner(
        learner: EZMTorchLearner, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Measure on a replay batch: names and arrays whose first axis are the tasks."""
        raise NotImplementedError

    def report(self, measured: dict[str, np.ndarray], tasks: Sequence[str]) -> dict[str, Any]:
        """The part of a result that shows what was measured; what is not finite is left out."""
        raise NotImplementedError


class GradientSimilarity(Probe):
    """Cosine of the tasks' loss gradients, per module: `probes/gradient_cosine/MODULE/TASK/TASK`.

    The loss is that of an update, with all its terms and weights, each task's the mean over its
    samples of the batch. Costs the targets, one forward pass and T backward passes.
    """

    name = GRADIENT_COSINE

    @staticmethod
    @override(Probe)
    def on_learner(
        learner: EZMTorchLearner, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        model = learner.module[DEFAULT_MODULE_ID].unwrapped().model
        gradients = task_gradients(
            learner.gradient_step.sample_losses(batch),
            batch["task_ids"],
            module_groups(model),
            model.spec.num_tasks,
        )
        return {group: cosines(rows) for group, rows in gradients.items()}

    @override(Probe)
    def report(self, measured: dict[str, np.ndarray], tasks: Sequence[str]) -> dict[str, Any]:
        return {self.name: cosine_report(measured, tasks)}


class ModelErrorProbe(Probe):
    """Errors of imagined rewards, latents and values: `probes/WHAT/TASK/unroll_K`.

    `ModelErrors` says what they are. Costs one forward pass without gradients.
    """

    name = "model_errors"

    @staticmethod
    @override(Probe)
    def on_learner(
        learner: EZMTorchLearner, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        config, model = learner.config, learner.module[DEFAULT_MODULE_ID].unwrapped().model
        training = model.training
        model.eval()
        try:
            errors = model_errors(
                model,
                batch,
                unroll_steps=config.unroll_steps,
                td_steps=config.td_steps,
                discount=config.gamma,
            )
        finally:
            model.train(training)
        return errors._asdict()

    @override(Probe)
    def report(self, measured: dict[str, np.ndarray], tasks: Sequence[str]) -> dict[str, Any]:
        names = {what: what for what in measured}
        names |= {what: f"{what}_error" for what in ("reward", "latent", "value")}
        report: dict[str, Any] = {}
        for what, values in measured.items():
            if values.shape[1] == 1:
                report[names[what]] = finite(zip(tasks, values[:, 0], strict=True))
                continue
            # h_0 is the encoded observation itself, so latent errors begin with h_1.
            first = int(what == "latent")
            report[names[what]] = {
                task: finite((f"unroll_{first + k}", value) for k, value in enumerate(row))
                for task, row in zip(tasks, values, strict=True)
            }
        return report


def measure(
    learner: EZMTorchLearner, *, probe: type[Probe], batch: dict[str, np.ndarray], seed: int
) -> dict[str, np.ndarray]:
    """Run a probe on a learner, wherever it is, without a trace."""
    tensors = {name: torch.as_tensor(x, device=learner.device) for name, x in batch.items()}
    with preserve_training_state(learner, seed):
        measured = probe.on_learner(learner, tensors)
    return {name: x.cpu().numpy() for name, x in measured.items()}


@contextmanager
def preserve_training_state(learner: Learner, seed: int) -> Iterator[None]:
    """Puts back what a forward pass in training mode moves, so that training goes on as it was.

    These are the module's running statistics, the generators of torch and the learner's metrics.

    Args:
        learner: The learner.
        seed: Seed of torch's generators inside.
    """
    buffers = list(learner.module[DEFAULT_MODULE_ID].unwrapped().buffers())
    before = [buffer.clone() for buffer in buffers]
    metrics, learner.metrics = learner.metrics, MetricsLogger()
    devices = [learner.device] if learner.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield
    finally:
        torch._foreach_copy_(buffers, before)
        learner.metrics = metrics


def cosine_report(
    matrices: Mapping[str, np.ndarray], tasks: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Cosines [T, T] by module as MODULE/TASK/TASK: every pair once, only what is finite."""
    return {
        module: {
            one: others
            for i, one in enumerate(tasks)
            if (others := finite(zip(tasks[i + 1 :], matrix[i, i + 1 :], strict=True)))
        }
        for module, matrix in matrices.items()
    }


def finite(named: Any) -> dict[str, float]:
    """The finite ones of named numbers: a task may have no data yet."""
    return {name: float(value) for name, value in named if math.isfinite(value)}
