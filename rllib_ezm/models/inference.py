"""The world model as inference runs it: folded weights, one precision, only what is asked for.

A `FoldedModel` computes what `WorldModel` computes in eval mode, in fewer and cheaper operations:

* BatchNorm is folded into the layer before it, LayerNorm's affine part into the layer after it;
* what the task embedding adds to the first layer of an encoder is a bias per task;
* embeddings are normalized once, and all weights are cast once, not once per call;
* value heads and the policy head are calls of their own: a search may need 2 of 5 value heads, and
  the policy only where it opens a node.

Shapes as in `world_model.py`: `M` rows, `V` value heads; `F = H + E`, the width of the value-policy
trunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from rllib_ezm.models.blocks import (
    BatchNormHead,
    TanhEncoder,
    TransitionTrunk,
    norm_of_first,
)
from rllib_ezm.models.policy_distribution import bound_log_std
from rllib_ezm.models.step_batch_norm import StepBatchNorm
from rllib_ezm.models.world_model import WorldModel


class Affine(NamedTuple):
    """`x W^T + b`: weight [out, in], bias [out], or [T, out] where it depends on the task."""

    weight: torch.Tensor
    bias: torch.Tensor

    def layer(self, dtype: torch.dtype) -> Layer:
        """The same, ready to be applied in some precision."""
        return Layer(self.bias.to(dtype), self.weight.to(dtype).contiguous().T)


class Layer(NamedTuple):
    """Arguments of `torch.addmm` but for the rows: bias and transposed weight [in, out]."""

    bias: torch.Tensor
    weight: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer to [M, in]."""
        return torch.addmm(self.bias, x, self.weight)


class HeadLayer(NamedTuple):
    """One layer of each of V heads: bias [V, 1, out] and transposed weight [V, in, out]."""

    bias: torch.Tensor
    weight: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Apply each head's layer to its own rows [V, M, in]."""
        return torch.baddbmm(self.bias, x, self.weight)

    def heads(self, heads: torch.Tensor) -> HeadLayer:
        """Of some of the heads [n], copied."""
        return HeadLayer(self.bias.index_select(0, heads), self.weight.index_select(0, heads))

    def each(self) -> list[Layer]:
        """Of every head by itself, without copies."""
        return [Layer(*parts) for parts in zip(self.bias[:, 0], self.weight, strict=True)]


Heads = Sequence[int] | torch.Tensor
"""Numbers of value heads, on the host or on the model's device."""


class TaskTerms(NamedTuple):
    """What rows of known tasks add: embedding [M, E], bias of the action encoder [M, C]."""

    embedding: torch.Tensor
    action_bias: torch.Tensor


class FoldedModel:
    """Inference view of a world model; `refresh` follows the model's weights.

    Args:
        model: The world model. Its BatchNorm statistics are the running ones, whatever its mode.
        dtype: Precision of weights and activations; supports are decoded by the caller.
    """

    def __init__(self, model: WorldModel, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.dtype = model, dtype
        self.device = model.task_embedding.weight.device
        self._tensors = [*model.parameters(), *model.buffers()]
        self._version = -1
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Fold the model's weights anew if any changed since the last time.

        A change is what PyTorch counts as one (`Tensor._version`): in-place operations and
        `load_state_dict`, but not the step of a fused optimizer, after which its owner calls
        `torch.autograd.graph.increment_version`. A move of the model to another device replaces
        its tensors: make a new view then.
        """
        version = sum(t._version for t in self._tensors)
        if version == self._version:
            return
        self._version = version
        model, spec = self.model, self.model.spec
        table = model.task_embedding.normalized()
        sites = {site: spec.embedding_width(site) > 0 for site in ("rep", "dyn", "rew", "vp")}
        encoder, blocks = _parts(model.representation)
        self._encoder = self._task_affine(encoder, table if sites["rep"] else None)
        self._encoder_norm = self._norm(encoder.norm)
        self._blocks = self._residual(blocks)
        self._dynamics = self._trunk(model.dynamics_model)
        reward = model.reward_model
        self._action_encoder = self._task_affine(
            reward.action_encoder, table if sites["rew"] else None
        )
        self._action_norm = self._norm(reward.action_encoder.norm)
        self._reward_trunk = self._trunk(reward.trunk)
        self._reward_head = self._head(reward.head)
        heads = model.value_policy_model
        trunk, norm = _parts(heads.trunk)
        self._features = self._residual(trunk)
        self._policy_head = self._head(heads.policy_head, norm)
        self._value_heads = self._ensemble(norm)
        self._root_policy_head = self._head(heads.policy_head, norm, root=True)
        self._root_value_heads = self._ensemble(norm, root=True)
        embedding = table.to(self.dtype)
        self._task_table = torch.cat([embedding, self._action_encoder.bias], dim=-1)
        self._task_widths = (table.shape[1], self._action_encoder.bias.shape[1])
        self._sites = sites

    @property
    def num_value_heads(self) -> int:
        """V."""
        return self.model.spec.num_value_heads

    def tasks(self, task_ids: torch.Tensor) -> TaskTerms:
        """Terms of the tasks [M] of some rows."""
        return TaskTerms(*self._task_table[task_ids].split(self._task_widths, dim=-1))

    def represent(self, observations: torch.Tensor, task_ids: torch.Tensor) -> torch.Tensor:
        """Latents [M, H] of raw observations [M, D] of tasks [M]."""
        x = self.model.normalizer(observations, task_ids).to(self.dtype)
        x = torch.addmm(self._encoder.bias[task_ids], x, self._encoder.weight)
        return _residual(torch.tanh(_layer_norm(x, *self._encoder_norm)), self._blocks)

    def reward(self, latent: torch.Tensor, action: torch.Tensor, tasks: TaskTerms) -> torch.Tensor:
        """Reward logits [M, Q] of actions [M, A] in latents [M, H]."""
        weight = self._action_encoder.weight
        encoded = torch.addmm(tasks.action_bias, action.to(self.dtype), weight)
        parts = [latent, torch.tanh(_layer_norm(encoded, *self._action_norm))]
        if self._sites["rew"]:
            parts.append(tasks.embedding)
        return _mlp(self._reward_trunk(latent, torch.cat(parts, dim=-1)), self._reward_head)

    def dynamics(
        self, latent: torch.Tensor, action: torch.Tensor, tasks: TaskTerms
    ) -> torch.Tensor:
        """Next latents [M, H] of actions [M, A] in latents [M, H]."""
        parts = [latent, action.to(self.dtype)]
        if self._sites["dyn"]:
            parts.insert(1, tasks.embedding)
        return self._dynamics(latent, torch.cat(parts, dim=-1))

    def features(self, latent: torch.Tensor, tasks: TaskTerms) -> torch.Tensor:
        """Input [M, F] of the value and policy heads at latents [M, H]."""
        if self._sites["vp"]:
            latent = torch.cat([latent, tasks.embedding], dim=-1)
        return _layer_norm(_residual(latent, self._features))

    def value(
        self, features: torch.Tensor, heads: Heads, *, root: bool = False
    ) -> list[torch.Tensor]:
        """Logits [M, Q] of each of some value heads at features [M, F].

        Args:
            features: The output of `features`.
            heads: Numbers of the heads: on the host, where each is a product of its own and no
                weight is copied, or as a tensor, which nothing is read back of.
            root: As in `WorldModel.predict`.
        """
        ensemble = self._root_value_heads if root else self._value_heads
        if isinstance(heads, torch.Tensor):
            x = features.expand(len(heads), -1, -1)
            return [*_mlp(x, [layer.heads(heads) for layer in ensemble.layers])]
        return [_mlp(features, ensemble.each[head]) for head in heads]

    def policy(
        self, features: torch.Tensor, *, root: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Policy mean and bounded log-std, fp32 at least, [M, A] each, at features [M, F].

        `root` as in `WorldModel.predict`.
        """
        parameters = _mlp(features, self._root_policy_head if root else self._policy_head)
        dtype = torch.promote_types(parameters.dtype, torch.float32)
        mean, raw_log_std = parameters.to(dtype).chunk(2, dim=-1)
        spec = self.model.spec
        return mean, bound_log_std(raw_log_std, spec.log_std_min, spec.log_std_max)

    def _norm(self, norm: nn.LayerNorm) -> tuple[torch.Tensor, torch.Tensor]:
        return norm.weight.to(self.dtype), norm.bias.to(self.dtype)

    def _task_affine(self, encoder: TanhEncoder, table: torch.Tensor | None) -> Layer:
        """First layer of an encoder whose last inputs are the task embedding."""
        weight, bias = encoder.linear.weight, encoder.linear.bias
        if table is None:
            num_tasks = self.model.spec.num_tasks
            return Affine(weight, bias.expand(num_tasks, -1)).layer(self.dtype)
        width = weight.shape[1] - table.shape[1]
        per_task = bias + table @ weight[:, width:].T
        return Affine(weight[:, :width], per_task).layer(self.dtype)

    def _residual(self, blocks: nn.Sequential) -> list[tuple[Layer, Layer]]:
        folded = []
        for block in _parts(blocks):
            expand = after_layer_norm(affine(block.expand), block.norm)
            folded.append((expand.layer(self.dtype), affine(block.project).layer(self.dtype)))
        return folded

    def _trunk(self, trunk: TransitionTrunk) -> _Trunk:
        width = trunk.norm.normalized_shape[0]
        weight, added = trunk.mix.weight[:, :width], trunk.mix.weight[:, width:]
        mix = after_layer_norm(Affine(weight, trunk.mix.bias), trunk.norm)
        mix = Affine(torch.cat([mix.weight, added], dim=1), mix.bias)
        project = affine(trunk.project)
        blocks = self._residual(trunk.blocks)
        return _Trunk(mix.layer(self.dtype), project.layer(self.dtype), blocks, width)

    def _head(
        self, head: BatchNormHead, norm: nn.LayerNorm | None = None, root: bool = False
    ) -> list[Layer]:
        first, first_norm, _, second, second_norm, _ = _parts(head.layers)
        layers = [
            before_batch_norm(affine(first), first_norm, root),
            before_batch_norm(affine(second), second_norm, root),
            affine(head.output),
        ]
        if norm is not None:
            layers[0] = after_layer_norm(layers[0], norm)
        return [layer.layer(self.dtype) for layer in layers]

    def _ensemble(self, norm: nn.LayerNorm, root: bool = False) -> _Ensemble:
        """The value heads; the first one reads the normalized features."""
        heads = self.model.value_policy_model.value_heads
        scale, shift = (
            x.view(heads.num_heads, -1) for x in batch_norm_scale(heads.second_norm, root)
        )
        first = after_layer_norm(
            before_batch_norm(affine(heads.first), heads.first_norm, root), norm
        )
        second, output = heads.second, heads.output
        layers = [
            (first.bias.view_as(scale), first.weight.view(*scale.shape, -1)),
            (second.bias[:, 0] * scale + shift, second.weight.mT * scale[..., None]),
            (output.bias[:, 0], output.weight.mT),
        ]
        stacked = [
            HeadLayer(bias[:, None].to(self.dtype), weight.to(self.dtype).contiguous().mT)
            for bias, weight in layers
        ]
        each = zip(*(layer.each() for layer in stacked), strict=True)
        return _Ensemble(stacked, [*each])


class _Ensemble(NamedTuple):
    """The folded layers of all value heads, and the same memory head by head."""

    layers: list[HeadLayer]
    each: list[tuple[Layer, ...]]


class _Trunk(NamedTuple):
    """Folded `TransitionTrunk`."""

    mix: Layer
    project: Layer
    blocks: list[tuple[Layer, Layer]]
    normalized: int

    def __call__(self, latent: torch.Tensor, joint: torch.Tensor) -> torch.Tensor:
        mixed = self.mix(norm_of_first(joint, self.normalized, _layer_norm)).relu_()
        return _residual(self.project(mixed).add_(latent), self.blocks)


def _parts(sequential: nn.Sequential) -> tuple[Any, ...]:
    return tuple(sequential)


def affine(linear: nn.Linear) -> Affine:
    """A linear layer's weight and bias."""
    return Affine(linear.weight, linear.bias)


def after_layer_norm(layer: Affine, norm: nn.LayerNorm) -> Affine:
    """`layer(norm(x))` as a function of `x` normalized without the affine part."""
    return Affine(layer.weight * norm.weight, layer.bias + layer.weight @ norm.bias)


def batch_norm_scale(norm: StepBatchNorm, root: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """BatchNorm with running statistics as `scale * x + shift`."""
    mean, variance = norm.statistics(root)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return scale, norm.bias - mean * scale


def before_batch_norm(layer: Affine, norm: StepBatchNorm, root: bool = False) -> Affine:
    """`norm(layer(x))` with running statistics."""
    scale, shift = batch_norm_scale(norm, root)
    return Affine(layer.weight * scale[:, None], layer.bias * scale + shift)


def _layer_norm(
    x: torch.Tensor, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None
) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], weight, bias)


def _residual(x: torch.Tensor, blocks: list[tuple[Layer, Layer]]) -> torch.Tensor:
    for expand, project in blocks:
        x = project(expand(_layer_norm(x)).relu_()).add_(x)
    return x


def _mlp(x: torch.Tensor, layers: Sequence[Layer] | Sequence[HeadLayer]) -> torch.Tensor:
    for layer in layers[:-1]:
        x = layer(x).relu_()
    return layers[-1](x)
