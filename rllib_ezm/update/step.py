"""One gradient step, top to bottom: from a replay batch to the next weights and priorities.

Torch only. Legend: B batch, K unroll steps, n TD steps, D padded observation dim, A padded action
dim, V value heads, T tasks. Source: section 4 and eqs. 7-9, arXiv:2603.01452.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.graph import increment_version

from rllib_ezm.models.collective import Collective
from rllib_ezm.models.precision import autocast
from rllib_ezm.models.unroll import Unroll, unroll_world_model
from rllib_ezm.models.world_model import WorldModel
from rllib_ezm.update.captured import CapturedUpdate, Recorder
from rllib_ezm.update.compiled import compiling, one_graph, without_effect
from rllib_ezm.update.nonfinite import NonFiniteGuard
from rllib_ezm.update.objective import LossWeights, loss_terms, total_loss
from rllib_ezm.update.reanalyzer import Reanalyzer, reanalyzed_columns, stored_targets
from rllib_ezm.update.settings import TrainingSettings
from rllib_ezm.update.target_network import TargetNetwork
from rllib_ezm.update.targets import Metrics, TargetBuilder, Targets, ValueMixing
from rllib_ezm.update.variance_window import VarianceWindow

logger = logging.getLogger(__name__)

Batch = Mapping[str, torch.Tensor]


class StepOutput(NamedTuple):
    """What a gradient step found.

    Attributes:
        loss: Scalar.
        priorities: |v(o_t) - z_t| of each sample [B], for the replay buffer.
        metrics: Scalars by name.
        terms: Loss terms per sample, unweighted: name -> [B].
        reanalyze_seconds: What the targets took; on an accelerator, their submission.
        stored_targets: For the replay buffer [B, K+1, 2 + 2A], see `reanalyzer.stored_targets`;
            None where all targets are made anew each time, or a reanalyze worker has made them.
    """

    loss: torch.Tensor
    priorities: torch.Tensor
    metrics: Metrics
    terms: Mapping[str, torch.Tensor]
    reanalyze_seconds: float
    stored_targets: torch.Tensor | None


class Made(NamedTuple):
    """Targets of a batch, their metrics, and what of them is to be stored (see `StepOutput`)."""

    targets: Targets
    metrics: Metrics
    stored: torch.Tensor | None


class Losses(NamedTuple):
    """What the forward pass gives: `loss` [], `terms` and `priorities` [B], `metrics` []."""

    loss: torch.Tensor
    terms: dict[str, torch.Tensor]
    priorities: torch.Tensor
    metrics: Metrics


class GradientStep:
    """Makes updates of a world model and its target network from replay batches.

    Args:
        model: The online network.
        target_model: The target network, which makes the targets.
        optimizer: Over the parameters of `model`, see `make_optimizer`.
        reanalyzer: Searches with `target_model`.
        variance_window: Range of the variance of each task's values.
        action_mask: [T, A], 1 for the real action dimensions of each task.
        task_names: T names.
        settings: Coefficients, horizons and precision.
        collective: Averages gradients over the learners that share a batch.
    """

    def __init__(
        self,
        model: WorldModel,
        target_model: WorldModel,
        optimizer: torch.optim.Optimizer,
        reanalyzer: Reanalyzer,
        variance_window: VarianceWindow,
        action_mask: torch.Tensor,
        task_names: Sequence[str],
        settings: TrainingSettings,
        collective: Collective,
    ) -> None:
        self.model, self.target_model = model, target_model
        self.optimizer, self.settings = optimizer, settings
        self.collective = collective
        self.num_updates = 0
        self._compile_mode: str | None = None if settings.compile == "off" else settings.compile
        self._run: Callable[[Batch, bool, bool], StepOutput] = self._update
        self._targets: Callable[[Batch, bool], Made] = self._make_targets
        self._losses: Callable[[Batch, Targets], Losses] = self._make_losses
        self.reanalyzer = reanalyzer
        self.build_targets = TargetBuilder(
            ValueMixing(
                settings.value_mixing,
                variance_window,
                age=settings.value_mixing_age,
            ),
            action_mask,
            unroll_steps=settings.unroll_steps,
        )
        self.loss_weights = LossWeights(
            reward=settings.reward_loss_coeff,
            value=settings.value_loss_coeff,
            policy=settings.policy_loss_coeff,
            temporal_consistency=settings.temporal_consistency_coeff,
            path_consistency=settings.path_consistency_coeff,
            entropy=settings.entropy_coeff,
        )
        self.target_network = TargetNetwork(target_model, model, settings.target_tau)
        learned = dict(model.named_parameters())
        statistics = [x for name, x in model.state_dict().items() if name not in learned]
        statistics += variance_window.buffers()
        self.guard = NonFiniteGuard(
            settings.max_consecutive_nonfinite_updates, task_names, statistics
        )

    def __call__(self, batch: Batch) -> StepOutput:
        """One update; nothing is read back from the device.

        An update whose loss or gradient is not finite has no effect: see `check_finite`.

        Args:
            batch: Columns as in `MultiTaskReplayBuffer.sample`, on the model's device.

        Returns:
            What it found; with `capture`, until the next update.
        """
        if self._compile_mode is not None:
            self._compile(batch)
        follows = (self.num_updates + 1) % self.settings.target_period == 0
        output = self._run(batch, self._mixing_started, follows)
        self.num_updates += 1
        return output

    def _update(self, batch: Batch, mixing_started: bool, follows: bool) -> StepOutput:
        """The update itself; the target network follows the online one if it `follows`."""
        self.guard.remember_statistics()
        started = time.perf_counter()
        self.reanalyzer.refresh()
        targets, metrics, stored = self._targets(batch, mixing_started)
        reanalyze_seconds = time.perf_counter() - started

        losses = self._losses(batch, targets)
        self.optimizer.zero_grad(set_to_none=True)
        losses.loss.backward()
        gradient_norm = self._average_and_clip_gradients()
        finite = self.guard.judge(losses.loss, gradient_norm)
        step_if(finite, self.optimizer)
        if follows:
            self.target_network.follow()

        metrics |= losses.metrics
        metrics["gradient_norm"] = gradient_norm
        metrics["skipped_updates"] = (~finite).float()
        terms = {name: term.detach() for name, term in losses.terms.items()}
        return StepOutput(
            losses.loss.detach(), losses.priorities, metrics, terms, reanalyze_seconds, stored
        )

    def capture(self, recorder: Recorder) -> None:
        """From now on record updates of each kind and replay them, see `CapturedUpdate`."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        tensors += [*self.target_model.parameters(), *self.target_model.buffers()]
        self.reanalyzer.planner.in_recordings = True
        self._run = CapturedUpdate(self._update, self.optimizer, tensors, recorder)

    @property
    def _mixing_started(self) -> bool:
        return self.num_updates >= self.settings.value_mixing_start

    def check_finite(self, output: StepOutput, batch: Batch) -> None:
        """Read from the device how many updates were skipped one after the other.

        Args:
            output: Of the last update.
            batch: Its batch.

        Raises:
            NonFiniteUpdatesError: Too many.
        """
        self.guard.check(output.terms, batch["task_ids"], self.model.named_parameters())

    def targets(self, batch: Batch) -> Made:
        """Targets of a batch; folds its root observations into the normalizer first."""
        self.reanalyzer.refresh()
        return self._targets(batch, self._mixing_started)

    @torch.no_grad()
    def _make_targets(self, batch: Batch, mixing_started: bool) -> Made:
        self.model.normalizer.update(batch["obs"][:, 0], batch["task_ids"])
        reanalyzed, stored = reanalyzed_columns(batch), None
        if reanalyzed is None:
            reanalyzed = self.reanalyzer(batch)
            if self.reanalyzer.ratio < 1.0:
                stored = stored_targets(reanalyzed, batch["step_mask"])
        targets, metrics = self.build_targets(batch, reanalyzed, self.model, mixing_started)
        return Made(targets, metrics, stored)

    def _make_losses(self, batch: Batch, targets: Targets) -> Losses:
        """The forward pass."""
        unroll = self.unroll(batch)
        terms = self.loss_terms(unroll, targets)
        loss = (batch["weights"] * total_loss(terms, self.loss_weights)).mean()
        root_value = self._root_value(unroll)
        priorities = (root_value - targets.value[0]).abs()
        metrics = loss_metrics(unroll, terms, root_value, priorities)
        metrics["importance_weight"] = batch["weights"].mean()
        return Losses(loss / self.settings.unroll_steps, terms, priorities, metrics)

    def _compile(self, batch: Batch) -> None:
        """Make graphs of targets, forward and backward pass with a batch that has no effect."""
        mode, self._compile_mode = self._compile_mode, None
        if mode is None:
            return
        plain = self._targets, self._losses
        buffers = [*self.guard.buffers]
        parameters = list(self.model.parameters())
        with without_effect(buffers, parameters):
            self._losses(batch, self.targets(batch).targets)  # makes what is made once
        self._targets = one_graph(self._make_targets, mode)
        self._losses = one_graph(self._make_losses, mode)
        try:
            with compiling(mode), without_effect(buffers, parameters):
                self._losses(batch, self.targets(batch).targets).loss.backward()
        except Exception as error:  # noqa: BLE001 - whatever a compiler may raise
            self._targets, self._losses = plain
            torch._dynamo.reset()
            logger.warning(
                "compile=%r failed, and the update runs without it: %s", mode, _first_line(error)
            )

    def unroll(self, batch: Batch) -> Unroll:
        """The online network's predictions along the executed actions, in training mode."""
        settings, steps = self.settings, self.settings.unroll_steps
        if not self.model.training:
            self.model.train()
        with autocast(batch["obs"].device.type, settings.train_precision):
            return unroll_world_model(
                self.model,
                batch["obs"][:, : steps + 1],
                batch["actions"][:, :steps],
                batch["task_ids"],
                latent_gradient_scale=settings.latent_gradient_scale,
            )

    def loss_terms(self, unroll: Unroll, targets: Targets) -> dict[str, torch.Tensor]:
        """Every loss term per sample, unweighted: name -> [B]."""
        return loss_terms(
            self.model,
            unroll,
            targets,
            discount=self.settings.gamma,
            squashed_entropy=self.settings.squashed_entropy,
        )

    def sample_losses(self, batch: Batch) -> torch.Tensor:
        """What an update on a batch minimizes the mean of, per sample [B], with its graph.

        Moves the running statistics as an update does.
        """
        targets = self.targets(batch).targets
        terms = self.loss_terms(self.unroll(batch), targets)
        losses = batch["weights"] * total_loss(terms, self.loss_weights)
        return losses / self.settings.unroll_steps

    def _average_and_clip_gradients(self) -> torch.Tensor:
        """Mean over the learners, then clip by the norm of all gradients, which is returned."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        self.collective.average_([p.grad for p in parameters if p.grad is not None])
        limit = self.settings.grad_clip
        norm = nn.utils.clip_grad_norm_(parameters, torch.inf if limit is None else limit)
        return norm

    @torch.no_grad()
    def _root_value(self, unroll: Unroll) -> torch.Tensor:
        """Mean over the heads of the values predicted at the first state [B]."""
        return self.model.value_support.decode(unroll.value_logits[0]).mean(dim=0)


@torch.no_grad()
def loss_metrics(
    unroll: Unroll,
    terms: Mapping[str, torch.Tensor],
    root_value: torch.Tensor,
    priorities: torch.Tensor,
) -> Metrics:
    """Means over the batch of the loss terms and of what the network predicts at the roots."""
    return {
        **{name if name == "entropy" else f"{name}_loss": t.mean() for name, t in terms.items()},
        "policy_std": unroll.log_std[0].exp().mean(),
        "policy_saturation": unroll.mean[0].tanh().abs().mean(),
        "root_value": root_value.mean(),
        "value_error": priorities.mean(),
    }


def step_if(condition: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """A step of a fused optimizer, which has no effect where `condition` [] is False.

    By what loss scaling does on overflow, so the condition is not read back from the device.
    """
    fused: Any = optimizer
    fused.grad_scale, fused.found_inf = None, (~condition).float()
    optimizer.step()


def make_optimizer(
    parameters: Iterable[nn.Parameter], *, weight_decay: float
) -> torch.optim.Optimizer:
    """Fused Adam with coupled weight decay; the learning rate is set by its owner.

    The fused kernel does not count its writes, which `FoldedModel.refresh` looks at, so a hook
    counts them.
    """
    kept = list(parameters)
    optimizer = torch.optim.Adam(kept, weight_decay=weight_decay, fused=True)
    optimizer.register_step_post_hook(lambda *_: increment_version(kept))
    return optimizer


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
