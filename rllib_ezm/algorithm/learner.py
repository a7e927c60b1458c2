"""EZM's Learner: targets by reanalyze, losses, optimizer, target network, priorities."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.annotations import override
from torch.autograd.graph import increment_version

from rllib_ezm.algorithm.rl_module import EZMTorchRLModule
from rllib_ezm.execution.reanalyze_worker import make_reanalyzer, reanalyzed_columns
from rllib_ezm.losses.targets import age_mixing_weight, alive_mask, mix_values, state_masks
from rllib_ezm.losses.total import LossWeights, Targets, loss_terms, total_loss
from rllib_ezm.models.collective import Collective, TorchCollective, share_statistics
from rllib_ezm.models.unroll import Unroll
from rllib_ezm.models.world_model import WorldModel
from rllib_ezm.update.nonfinite import NonFiniteGuard
from rllib_ezm.update.reanalyzer import Reanalyzed
from rllib_ezm.utils.allocator import keep_freed_memory
from rllib_ezm.utils.seeding import derived_seed, seed_generators

PRIORITIES = "priorities"
REANALYZE_SECONDS = "reanalyze_seconds"


class EZMTorchLearner(TorchLearner):
    """One update = reanalyze with the target network, unroll, six loss terms, Adam, EMA.

    Several learners take parts of one batch: gradients are averaged, and statistics are those of
    the whole batch, so that all hold the same weights, and the same as one learner would.
    """

    @override(TorchLearner)
    def build(self) -> None:
        keep_freed_memory()
        super().build()
        config = self.config
        module = self._ezm_module
        self._reanalyzer = make_reanalyzer(config, module, module.target_model)
        self._loss_weights = LossWeights(
            reward=config.reward_loss_coeff,
            value=config.value_loss_coeff,
            policy=config.policy_loss_coeff,
            temporal_consistency=config.temporal_consistency_coeff,
            path_consistency=config.path_consistency_coeff,
            entropy=config.entropy_coeff,
        )
        self._update_target = TargetUpdate(module.target_model, module.model, config.target_tau)
        self._num_updates = 0
        self._targets: Targets | None = None
        self._guard = NonFiniteGuard(
            config.max_consecutive_nonfinite_updates,
            config.get_task_set().names,
            module.buffers(),
        )

    @property
    def _ezm_module(self) -> EZMTorchRLModule:
        module: EZMTorchRLModule = self.module[DEFAULT_MODULE_ID].unwrapped()
        return module

    @override(TorchLearner)
    def _make_modules_ddp_if_necessary(self) -> None:
        """Join the other learners, without DDP.

        DDP refuses outputs that no loss term reads, as ablations have, and knows nothing of the
        targets' statistics.
        """
        self.collective: Collective = Collective()
        if self.config.num_learners > 1:
            module = self._ezm_module
            self.collective = TorchCollective()
            self.collective.copy_from_first_(module.state_dict().values())
            share_statistics(module, self.collective)
            if self.config.seed is not None:
                seed_generators(derived_seed(self.config.seed, self.collective.rank))

    @override(TorchLearner)
    def get_parameters(self, module: Any) -> Sequence[torch.nn.Parameter]:
        return [p for p in module.parameters() if p.requires_grad]

    @override(TorchLearner)
    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        parameters = self.get_parameters(self.module[module_id])
        optimizer = torch.optim.Adam(parameters, weight_decay=config.weight_decay, fused=True)
        # The fused kernel does not count its writes, which `FoldedModel.refresh` looks at.
        optimizer.register_step_post_hook(lambda *_: increment_version(parameters))
        self.register_optimizer(
            module_id=module_id,
            optimizer=optimizer,
            params=parameters,
            lr_or_lr_schedule=config.lr,
        )

    @override(TorchLearner)
    def _uncompiled_update(self, batch: dict[str, Any], **kwargs: Any) -> Any:
        self._guard.begin()
        start = time.perf_counter()
        self._targets = self._make_targets(batch[DEFAULT_MODULE_ID])
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - start
        self.metrics.log_value((DEFAULT_MODULE_ID, REANALYZE_SECONDS), seconds, reduce="sum")
        # As in TorchLearner, which asks DDP not to synchronize: there is no DDP here.
        fwd_out = self.module.forward_train(batch)
        losses = self.compute_losses(fwd_out=fwd_out, batch=batch)
        gradients = self.compute_gradients(losses)
        self.apply_gradients(self.postprocess_gradients(gradients))
        return fwd_out, losses, {}

    def _make_targets(self, batch: dict[str, torch.Tensor]) -> Targets:
        """Targets of a replay batch, K-major; also folds the observations into the normalizer."""
        config, module = self.config, self._ezm_module
        steps, task_ids = config.unroll_steps, batch["task_ids"]
        module.model.normalizer.update(batch["obs"][:, 0], task_ids)
        reanalyzed = reanalyzed_columns(batch) or self._reanalyzer(batch)
        policy_mask, value_mask = state_masks(batch["step_mask"], batch["terminal"], steps)
        value = self._mix_values(batch, reanalyzed, value_mask, policy_mask)
        alive = alive_mask(batch["step_mask"], batch["terminal"], steps)
        reward = batch["rewards"][:, :steps]
        transition_mask = batch["step_mask"][:, :steps]
        self._log_targets(reward, transition_mask, value, value_mask, reanalyzed)
        use_distribution = config.policy_loss == "distribution"
        return Targets(
            reward=reward.T,
            value=value.T,
            best_action=reanalyzed.best_action.transpose(0, 1),
            candidates=_k_major(reanalyzed.candidates) if use_distribution else None,
            candidate_weights=_k_major(reanalyzed.weights) if use_distribution else None,
            action_mask=module.action_mask[task_ids],
            transition_mask=transition_mask.T,
            policy_mask=policy_mask.T,
            value_mask=value_mask.T,
            alive=alive.T,
        )

    def _mix_values(
        self,
        batch: dict[str, torch.Tensor],
        reanalyzed: Reanalyzed,
        value_mask: torch.Tensor,
        policy_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Mixed value targets [B, K+1]; terminal states keep their TD value, 0."""
        config, window = self.config, self._ezm_module.variance_window
        if config.value_mixing == "td":
            return reanalyzed.td_value
        if config.value_mixing == "search":
            alpha = torch.zeros_like(reanalyzed.td_value)
        elif config.value_mixing == "age":
            alpha = age_mixing_weight(batch["age"], config.value_mixing_age)[:, None]
            if self._num_updates < config.value_mixing_start:
                alpha = torch.ones_like(alpha)
        else:
            window.update(reanalyzed.value_variance, value_mask, batch["task_ids"])
            alpha = window.alpha(reanalyzed.value_variance, batch["task_ids"])
            self._log("value_mixing_alpha", alpha.mean())
        mixed = mix_values(alpha, reanalyzed.td_value, reanalyzed.search_value)
        return torch.where(policy_mask > 0, mixed, reanalyzed.td_value)

    @override(TorchLearner)
    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        targets = self._targets
        assert targets is not None
        model = self._ezm_module.model
        unroll = Unroll(**fwd_out)
        terms = self._loss_terms(model, unroll, targets)
        per_sample = total_loss(terms, self._loss_weights)
        weights = batch["weights"]
        with torch.no_grad():
            root_values = model.value_support.decode(unroll.value_logits[0]).mean(dim=0)
            priorities = (root_values - targets.value[0]).abs()
            for name, term in terms.items():
                self._log(f"{name}_loss" if name != "entropy" else name, term.mean())
            self._log("policy_std", unroll.log_std[0].exp().mean())
            self._log("policy_saturation", unroll.mean[0].tanh().abs().mean())
            self._log("root_value", root_values.mean())
            self._log("value_error", priorities.mean())
            self._log("importance_weight", weights.mean())
        self.metrics.log_value((module_id, PRIORITIES), priorities, reduce="item_series")
        loss = (weights * per_sample).mean() / config.unroll_steps
        self._guard.remember(loss, terms, batch["task_ids"])
        return loss

    def _loss_terms(
        self, model: WorldModel, unroll: Unroll, targets: Targets
    ) -> dict[str, torch.Tensor]:
        config = self.config
        return loss_terms(
            model,
            unroll,
            targets,
            discount=config.gamma,
            squashed_entropy=config.squashed_entropy,
        )

    def target_weights(self) -> dict[str, np.ndarray]:
        """What a reanalyze worker needs: the target network without the consistency loss's part."""
        state = self._ezm_module.target_model.state_dict()
        return {
            name: tensor.cpu().numpy()
            for name, tensor in state.items()
            if not name.startswith(("projector.", "predictor."))
        }

    def sample_losses(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """What an update on a replay batch would minimise the mean of, per sample [B], with graph.

        Moves the running statistics and logs as an update does; `preserve_training_state` of
        `algorithm.callbacks` undoes that.
        """
        targets = self._make_targets(batch)
        unroll = Unroll(**self._ezm_module.forward_train(batch))
        terms = self._loss_terms(self._ezm_module.model, unroll, targets)
        return batch["weights"] * total_loss(terms, self._loss_weights) / self.config.unroll_steps

    @override(TorchLearner)
    def postprocess_gradients_for_module(
        self, *, module_id: str, config: Any = None, module_gradients_dict: dict[Any, Any]
    ) -> dict[Any, Any]:
        """Average over the learners, clip by the global norm over all gradients, log the norm."""
        parameters = [p for p in self._params.values() if p.grad is not None]
        self.collective.average_([p.grad for p in parameters if p.grad is not None])
        limit = torch.inf if config.grad_clip is None else config.grad_clip
        self._gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        self._log("gradient_norm", self._gradient_norm)
        return module_gradients_dict

    @override(TorchLearner)
    def apply_gradients(self, gradients_dict: dict[Any, Any]) -> None:
        """Step the optimizer on the clipped gradients, unless `NonFiniteGuard` forbids it."""
        finite = self._guard.check(self._gradient_norm, self._ezm_module.named_parameters())
        if finite:
            self.get_optimizer(DEFAULT_MODULE_ID).step()
        key = (DEFAULT_MODULE_ID, "skipped_updates")
        self.metrics.log_value(key, int(not finite), reduce="sum")

    def _log_targets(
        self,
        reward: torch.Tensor,
        transition_mask: torch.Tensor,
        value: torch.Tensor,
        value_mask: torch.Tensor,
        reanalyzed: Reanalyzed,
    ) -> None:
        model = self._ezm_module.model
        overflow = (model.reward_support.overflow(reward) * transition_mask).sum()
        overflow = overflow + (model.value_support.overflow(value) * value_mask).sum()
        key = (DEFAULT_MODULE_ID, "support_overflow")
        self.metrics.log_value(key, overflow, reduce="sum")
        valid = value_mask.sum().clamp(min=1.0)
        self._log("target_value", (value * value_mask).sum() / valid)
        self._log("search_value", (reanalyzed.search_value * value_mask).sum() / valid)
        self._log("td_value", (reanalyzed.td_value * value_mask).sum() / valid)
        self._log("value_variance", (reanalyzed.value_variance * value_mask).sum() / valid)

    def _log(self, name: str, value: torch.Tensor) -> None:
        self.metrics.log_value((DEFAULT_MODULE_ID, name), value.detach(), reduce="mean")

    @override(TorchLearner)
    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().after_gradient_based_update(timesteps=timesteps)
        self._num_updates += 1
        if self._num_updates % self.config.target_period == 0:
            self._update_target()

    @override(TorchLearner)
    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {
            **super().get_state(*args, **kwargs),
            "num_updates": self._num_updates,
            "num_consecutive_nonfinite": self._guard.num_consecutive,
        }

    @override(TorchLearner)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._num_updates = state.get("num_updates", self._num_updates)
        self._guard.num_consecutive = state.get(
            "num_consecutive_nonfinite", self._guard.num_consecutive
        )


class TargetUpdate:
    """`target <- (1 - tau) target + tau online`, for weights and BatchNorm statistics.

    The observation normalizer is copied as it is: both networks must see the same input scale.
    """

    def __init__(self, target: WorldModel, online: WorldModel, tau: float) -> None:
        self.tau = tau
        self._moving: list[torch.Tensor] = []
        self._moving_sources: list[torch.Tensor] = []
        self._copied: list[tuple[torch.Tensor, torch.Tensor]] = []
        sources = online.state_dict()
        for name, value in target.state_dict().items():
            if name.startswith("normalizer.") or not value.is_floating_point():
                self._copied.append((value, sources[name]))
            else:
                self._moving.append(value)
                self._moving_sources.append(sources[name])

    @torch.no_grad()
    def __call__(self) -> None:
        """Move the target one step."""
        torch._foreach_lerp_(self._moving, self._moving_sources, self.tau)
        for value, source in self._copied:
            value.copy_(source)


def _k_major(x: torch.Tensor | None) -> torch.Tensor | None:
    return None if x is None else x.transpose(0, 1)
