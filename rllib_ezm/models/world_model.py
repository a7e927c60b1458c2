"""The multi-task world model: representation, dynamics, reward, value and policy (Table 4).

Equation numbers are those of arXiv:2603.01452. Shapes: `M` rows of any batch, `D` padded
observation dim, `A` padded action dim, `E` task-embedding dim, `H` latent dim, `V` value heads,
`Q` support bins, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from rllib_ezm.models.blocks import (
    BatchNormHead,
    EnsembleBatchNormHead,
    Predictor,
    Projector,
    TanhEncoder,
    TransitionTrunk,
    residual_stack,
)
from rllib_ezm.models.categorical import CategoricalSupport
from rllib_ezm.models.normalizer import ObservationNormalizer
from rllib_ezm.models.policy_distribution import bound_log_std
from rllib_ezm.models.settings import SubNetwork, WorldModelSettings
from rllib_ezm.models.step_batch_norm import StepBatchNorm
from rllib_ezm.utils.settings import check_value


@dataclass(frozen=True)
class WorldModelSpec(WorldModelSettings):
    """Sizes and switches of a `WorldModel` for some tasks.

    Raises:
        ValueError: If a size is not positive or a setting is out of range.
    """

    obs_dim: int
    action_dim: int
    num_tasks: int

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("obs_dim", "action_dim", "num_tasks"):
            check_value(name, getattr(self, name), int, at_least=1)

    def embedding_width(self, site: str) -> int:
        """Width that the task embedding adds to the input of a sub-network (0 if off)."""
        return self.embedding_dim if site in self.task_embedding else 0

    @property
    def num_added_actions(self) -> int:
        """Action dims that enter the dynamics after its first LayerNorm."""
        limit = (
            self.action_dim if self.normalized_action_dim is None else self.normalized_action_dim
        )
        return max(self.action_dim - limit, 0)


class Prediction(NamedTuple):
    """Value and policy heads at a latent: logits [V, M, Q], mean and log-std [M, A]."""

    value_logits: torch.Tensor
    mean: torch.Tensor
    log_std: torch.Tensor


class TaskEmbedding(nn.Module):
    """One learned row per task, renormalized to norm <= 1 at look-up; [M] -> [M, E]."""

    def __init__(self, num_tasks: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.functional.normalize(torch.randn(num_tasks, dim), dim=-1))

    def normalized(self) -> torch.Tensor:
        """The embeddings of all tasks [T, E], each of norm <= 1."""
        norm = self.weight.norm(dim=-1, keepdim=True)
        return self.weight / norm.clamp(min=1.0)

    def forward(self, task_ids: torch.Tensor) -> torch.Tensor:
        """Look up tasks [M]."""
        return self.normalized()[task_ids]


class RewardModel(nn.Module):
    """`R(h, a, e) -> [M, Q]` logits: own action encoder and trunk, apart from the dynamics."""

    def __init__(self, spec: WorldModelSpec) -> None:
        super().__init__()
        embedding = spec.embedding_width("rew")
        self.action_encoder = TanhEncoder(spec.action_dim + embedding, spec.action_embedding_dim)
        self.trunk = TransitionTrunk(
            spec.latent_dim, embedding + spec.action_embedding_dim, spec.num_blocks
        )
        # A reward is asked of encoded and imagined latents alike, in one call of the search.
        self.head = BatchNormHead(
            spec.latent_dim, spec.head_dim, spec.num_bins, zero_init=True, norm=StepBatchNorm
        )

    def forward(
        self,
        latent: torch.Tensor,
        action: torch.Tensor,
        embedding: torch.Tensor | None,
        steps: int = 1,
    ) -> torch.Tensor:
        """Reward logits of latents [M, H], actions [M, A] and embeddings [M, E] or None."""
        encoded = self.action_encoder(concat(action, embedding))
        out: torch.Tensor = self.head(self.trunk(latent, concat(encoded, embedding)), steps)
        return out


class ValuePolicyModel(nn.Module):
    """Shared trunk with `V` value heads and one policy head; [M, H], [M, E] -> `Prediction`."""

    def __init__(self, spec: WorldModelSpec) -> None:
        super().__init__()
        width = spec.latent_dim + spec.embedding_width("vp")
        self.log_std_min, self.log_std_max = spec.log_std_min, spec.log_std_max
        self.trunk = nn.Sequential(residual_stack(width, spec.num_blocks), nn.LayerNorm(width))
        self.value_heads = EnsembleBatchNormHead(
            spec.num_value_heads, width, spec.head_dim, spec.num_bins
        )
        self.policy_head = BatchNormHead(width, spec.head_dim, 2 * spec.action_dim, zero_init=True)

    def forward(
        self,
        latent: torch.Tensor,
        embedding: torch.Tensor | None,
        steps: int = 1,
        root: bool = False,
    ) -> Prediction:
        """Predictions at latents [M, H] with embeddings [M, E] or None."""
        features = self.trunk(concat(latent, embedding))
        parameters = self.policy_head(features, steps, root)
        # The distribution is computed in fp32 at least, under autocast too.
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        mean, raw_log_std = parameters.chunk(2, dim=-1)
        log_std = bound_log_std(raw_log_std, self.log_std_min, self.log_std_max)
        return Prediction(self.value_heads(features, steps, root), mean, log_std)


class WorldModel(nn.Module):
    """All networks of EZ-M; 16,085,158 parameters at D=177, A=61, T=14 with the defaults.

    Args:
        spec: Sizes and switches.
        observation_mask: [T, D], 1 where a task owns an observation dimension; all ones if None.
    """

    def __init__(self, spec: WorldModelSpec, observation_mask: torch.Tensor | None = None) -> None:
        super().__init__()
        self.spec = spec
        if observation_mask is None:
            observation_mask = torch.ones(spec.num_tasks, spec.obs_dim)
        self.normalizer = ObservationNormalizer(observation_mask)
        self.task_embedding = TaskEmbedding(spec.num_tasks, spec.embedding_dim)
        self.representation = nn.Sequential(
            TanhEncoder(spec.obs_dim + spec.embedding_width("rep"), spec.latent_dim),
            residual_stack(spec.latent_dim, spec.num_blocks),
        )
        self.dynamics_model = TransitionTrunk(
            spec.latent_dim,
            spec.embedding_width("dyn") + spec.action_dim,
            spec.num_blocks,
            spec.num_added_actions,
        )
        self.reward_model = RewardModel(spec)
        self.value_policy_model = ValuePolicyModel(spec)
        self.projector = Projector(spec.latent_dim, spec.projection_dim)
        self.predictor = Predictor(spec.latent_dim, spec.projection_dim)
        self.reward_support = CategoricalSupport(*spec.reward_support, spec.num_bins)
        self.value_support = CategoricalSupport(*spec.value_support, spec.num_bins)

    def embed(self, task_ids: torch.Tensor) -> torch.Tensor:
        """Task embeddings; [M] int64 -> [M, E]."""
        embedding: torch.Tensor = self.task_embedding(task_ids)
        return embedding

    def represent(
        self, observations: torch.Tensor, task_ids: torch.Tensor, embedding: torch.Tensor
    ) -> torch.Tensor:
        """`h = H(s, e)`; raw observations [M, D], tasks [M], embeddings [M, E] -> [M, H]."""
        normalized = self.normalizer(observations, task_ids)
        latent: torch.Tensor = self.representation(concat(normalized, self._at("rep", embedding)))
        return latent

    def dynamics(
        self, latent: torch.Tensor, action: torch.Tensor, embedding: torch.Tensor
    ) -> torch.Tensor:
        """`h' = G(h, a, e)`; [M, H], [M, A], [M, E] -> [M, H] (eq. 1; the raw action enters)."""
        context = concat(action, self._at("dyn", embedding), embedding_first=True)
        next_latent: torch.Tensor = self.dynamics_model(latent, context)
        return next_latent

    def reward(
        self, latent: torch.Tensor, action: torch.Tensor, embedding: torch.Tensor, steps: int = 1
    ) -> torch.Tensor:
        """Reward logits `R(h, a, e)` [M, Q]; `steps` as in `predict`."""
        logits: torch.Tensor = self.reward_model(latent, action, self._at("rew", embedding), steps)
        return logits

    def predict(
        self, latent: torch.Tensor, embedding: torch.Tensor, steps: int = 1, *, root: bool = False
    ) -> Prediction:
        """Value logits [V, M, Q] and policy parameters [M, A] at latents [M, H].

        Args:
            latent: Latents.
            embedding: Task embeddings [M, E].
            steps: Rows that each sample has, one per unroll step, one after the other; BatchNorm
                keeps their statistics apart. The first is an encoded observation.
            root: With one step, whether the latents are encoded observations or imagined: they
                have running BatchNorm statistics of their own (`RootStepBatchNorm`).
        """
        prediction: Prediction = self.value_policy_model(
            latent, self._at("vp", embedding), steps, root
        )
        return prediction

    def project(self, latent: torch.Tensor, *, with_predictor: bool) -> torch.Tensor:
        """SimSiam projection of latents [M, H] -> [M, H], through the predictor if asked."""
        projected: torch.Tensor = self.projector(latent)
        return self.predictor(projected) if with_predictor else projected

    def sub_networks(self) -> dict[SubNetwork, nn.Module]:
        """The parts that have parameters, by name; together they have all."""
        return {
            "representation": self.representation,
            "dynamics": self.dynamics_model,
            "reward": self.reward_model,
            "value_policy": self.value_policy_model,
            "projector": self.projector,
            "predictor": self.predictor,
            "task_embedding": self.task_embedding,
        }

    def freeze(self, names: Iterable[SubNetwork]) -> None:
        """Give the parameters of these sub-networks no gradients; running statistics still move."""
        parts = self.sub_networks()
        for name in names:
            parts[name].requires_grad_(False)

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each sub-network."""
        parts = self.sub_networks().items()
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts}

    def _at(self, site: str, embedding: torch.Tensor) -> torch.Tensor | None:
        return embedding if site in self.spec.task_embedding else None


def concat(
    x: torch.Tensor, embedding: torch.Tensor | None, *, embedding_first: bool = False
) -> torch.Tensor:
    """Append (or prepend) the task embedding to `x`; `x` itself if the embedding is off."""
    if embedding is None:
        return x
    return torch.cat([embedding, x] if embedding_first else [x, embedding], dim=-1)
