"""What every planner shares: the world model as a search sees it, and planning around a search.

Value reduction, value clipping and numeric precision are decided here, so that the searches
themselves stay pure. Shapes: `B` roots, `M` rows, `V` value heads, `A` actions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch

from rllib_ezm.models.categorical import expected_scalar
from rllib_ezm.models.inference import FoldedModel, Heads
from rllib_ezm.models.policy_distribution import mode_squashed
from rllib_ezm.models.precision import resolve_dtype
from rllib_ezm.models.world_model import WorldModel
from rllib_ezm.search.settings import VALUE_REDUCTIONS, SearchSettings
from rllib_ezm.search.types import Plan, RootInference, RootOutput, SearchModel, StepOutput


def draw_heads(
    num_heads: int,
    reduction: str,
    device: torch.device,
    generator: torch.Generator | None = None,
    *,
    as_numbers: bool = False,
) -> Heads:
    """Value heads to evaluate: two at random for "random_pair", all for "min" and "mean".

    Args:
        num_heads: V.
        reduction: One of `VALUE_REDUCTIONS`.
        device: Where they are drawn.
        generator: Of that device.
        as_numbers: Read them from the device, which on a CPU saves copying their weights.

    Raises:
        ValueError: If `reduction` is unknown.
    """
    if reduction not in VALUE_REDUCTIONS:
        raise ValueError(f"value_reduction {reduction!r} is unknown; use one of {VALUE_REDUCTIONS}")
    if reduction != "random_pair" or num_heads <= 2:
        return tuple(range(num_heads))
    drawn = torch.randperm(num_heads, generator=generator, device=device)[:2]
    return tuple(drawn.tolist()) if as_numbers else drawn


def reduce_values(
    values: torch.Tensor, reduction: str, *, clip_min: float | None = None
) -> torch.Tensor:
    """Reduce the decoded values of the drawn heads [V, M] -> [M].

    Args:
        values: Decoded values of the heads of `draw_heads`.
        reduction: "mean"; "random_pair" and "min" are the minimum of what was drawn.
        clip_min: Lower bound applied to each head first; None for no bound.
    """
    if clip_min is not None:
        values = values.clamp(min=clip_min)
    return values.mean(dim=0) if reduction == "mean" else values.amin(dim=0)


class ModelInSearch:
    """One-step inference of a view (`SearchModel`), rewards and values decoded, values reduced.

    Args:
        view: The folded model.
        value_reduction: See `draw_heads`; "random_pair" draws anew at each step.
        value_clip_min: Lower bound of the values of each head, or None.
        as_numbers: See `draw_heads`.
    """

    def __init__(
        self,
        view: FoldedModel,
        value_reduction: str,
        value_clip_min: float | None,
        *,
        as_numbers: bool = False,
    ) -> None:
        self._view, self._as_numbers = view, as_numbers
        self._reduction, self._clip_min = value_reduction, value_clip_min
        self.policy = view.policy
        reward, value = view.model.reward_support.atoms, view.model.value_support.atoms
        self._atoms = torch.stack([reward, *[value] * view.num_value_heads]).unsqueeze(1)

    def step(
        self, latent: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor
    ) -> StepOutput:
        """One imagined step from latents [M, H] with actions [M, A]."""
        view = self._view
        tasks = view.tasks(task_ids)
        reward_logits = view.reward(latent, action, tasks)
        next_latent = view.dynamics(latent, action, tasks)
        features = view.features(next_latent, tasks)
        logits = torch.stack([reward_logits, *view.value(features, self.draw_heads())])
        scalars = expected_scalar(logits, self._atoms[: len(logits)])
        value = reduce_values(scalars[1:], self._reduction, clip_min=self._clip_min)
        return StepOutput(next_latent, features, scalars[0], value)

    def draw_heads(self) -> Heads:
        """The value heads of one step, see `draw_heads`."""
        view = self._view
        return draw_heads(
            view.num_value_heads, self._reduction, view.device, as_numbers=self._as_numbers
        )


class WorldModelPlanner(ABC):
    """Plans with a world model's folded view (see `FoldedModel`), without gradients.

    A subclass is a search: `draw_noise` and `search`. Sizes come to it as `SearchSettings`, of
    which it reads what it has a use for; constants of its own are class attributes. The view
    follows the model's weights by itself. BatchNorm uses its running statistics.

    Attributes:
        gives_candidates: Whether its plans have candidates and weights. Without them
            `policy_loss="distribution"` and replayed actions are refused.

        in_recordings: Whether its calls are recorded and replayed, so that it must read nothing
            from the device, not even a CPU.

    Args:
        model: The world model.
        action_mask: [T, A], 1 for the real action dimensions of each task.
        value_reduction: "mean" or "min" of all value heads, or "random_pair": the minimum of two
            of them, drawn at random once a call of the model.
        value_clip_min: Lower bound of predicted values, or None.
        precision: "float32", "bfloat16", "float16", or "auto", see `resolve_dtype`.
        chunk_size: Roots searched at once on a CPU, which bounds memory (smaller chunks are not
            faster); a GPU searches all at once.

    Raises:
        ValueError: If a name is unknown.
    """

    gives_candidates: ClassVar[bool] = False

    def __init__(
        self,
        model: WorldModel,
        action_mask: torch.Tensor,
        *,
        value_reduction: str = "random_pair",
        value_clip_min: float | None = None,
        precision: str = "float32",
        chunk_size: int = 512,
    ) -> None:
        draw_heads(1, value_reduction, torch.device("cpu"))
        resolve_dtype("cpu", precision)
        self.model = model
        self.action_mask = action_mask
        self.value_reduction = value_reduction
        self.value_clip_min = value_clip_min
        self.precision = precision
        self.chunk_size = chunk_size
        self.in_recordings = False
        self._view: FoldedModel | None = None

    def refresh(self) -> None:
        """See `Planner`."""
        self._fresh_view()

    def _fresh_view(self) -> FoldedModel:
        """The view with the model's weights of this moment, in the precision of its device.

        A compiled graph reads the view that there is: what has changed is not known to it.
        """
        if self._view is not None and torch.compiler.is_compiling():
            return self._view
        device = self.model.task_embedding.weight.device
        if self._view is None or self._view.device != device:
            self.action_mask = self.action_mask.to(device)
            self._view = FoldedModel(self.model, resolve_dtype(device.type, self.precision))
        self._view.refresh()
        return self._view

    def model_in_search(self) -> ModelInSearch:
        """The model, with its weights of this moment, as a search calls it."""
        view = self._fresh_view()
        return ModelInSearch(
            view, self.value_reduction, self.value_clip_min, as_numbers=self._reads_heads
        )

    @property
    def _reads_heads(self) -> bool:
        """A graph must not depend on the heads that were drawn when it was made."""
        is_graph = self.in_recordings or torch.compiler.is_compiling()
        return self.model.task_embedding.weight.device.type == "cpu" and not is_graph

    @torch.no_grad()
    def root(self, observations: torch.Tensor, task_ids: torch.Tensor) -> RootInference:
        """Encode raw padded observations [B, D] of tasks [B]."""
        view = self._fresh_view()
        latent = view.represent(observations, task_ids)
        features = view.features(latent, view.tasks(task_ids))
        all_heads = tuple(range(view.num_value_heads))
        logits = torch.stack(view.value(features, all_heads, root=True))
        values = self.model.value_support.decode(logits)
        heads = draw_heads(
            view.num_value_heads,
            self.value_reduction,
            values.device,
            as_numbers=self._reads_heads,
        )
        drawn = values[heads if isinstance(heads, torch.Tensor) else list(heads)]
        value = reduce_values(drawn, self.value_reduction, clip_min=self.value_clip_min)
        variance = values.var(dim=0) if values.shape[0] > 1 else torch.zeros_like(value)
        return RootInference(RootOutput(latent, value, *view.policy(features, root=True)), variance)

    @torch.no_grad()
    def plan(
        self,
        root: RootOutput,
        task_ids: torch.Tensor,
        settings: SearchSettings | None,
        *,
        noise: tuple[torch.Tensor, ...] | None = None,
        generator: torch.Generator | None = None,
        replayed_action: torch.Tensor | None = None,
    ) -> Plan:
        """Search from encoded roots, or act with the policy mean if `settings` is None.

        Args:
            root: `RootInference.root` of B roots.
            task_ids: [B].
            settings: Sizes and constants of the search.
            noise: Its randomness; drawn with `generator` if None.
            generator: Random generator on the roots' device.
            replayed_action: [B, A], a candidate besides those that are sampled.

        Raises:
            ValueError: If `noise` and `generator` are both given, or a replayed action to a planner
                without candidates.
        """
        model = self.model_in_search()
        mask = self.action_mask[task_ids]
        if settings is None:
            return Plan(mode_squashed(root.mean, mask), root.value, None, None)
        if replayed_action is not None and not self.gives_candidates:
            raise ValueError(f"{type(self).__name__} has no candidates for a replayed action")
        if noise is None:
            batch, action_dim = mask.shape
            noise = self.draw_noise(batch, action_dim, settings, mask.device, generator)
        elif generator is not None:
            raise ValueError("give noise or generator, not both: given noise needs no generator")
        if task_ids.device.type != "cpu" or len(task_ids) <= self.chunk_size:
            return self.search(model, root, task_ids, mask, settings, noise, replayed_action)
        plans = []
        for start in range(0, len(task_ids), self.chunk_size):
            rows = slice(start, start + self.chunk_size)
            part = RootOutput(*(x[rows] for x in root))
            drawn = tuple(x[rows] for x in noise)
            replayed = None if replayed_action is None else replayed_action[rows]
            plans.append(
                self.search(model, part, task_ids[rows], mask[rows], settings, drawn, replayed)
            )
        return _concatenate(plans)

    @abstractmethod
    def draw_noise(
        self,
        batch: int,
        action_dim: int,
        settings: SearchSettings,
        device: torch.device,
        generator: torch.Generator | None,
    ) -> tuple[torch.Tensor, ...]:
        """Draw all randomness of a search of B = `batch` roots: tensors [B, ...], one or more."""

    @abstractmethod
    def search(
        self,
        model: SearchModel,
        root: RootOutput,
        task_ids: torch.Tensor,
        action_mask: torch.Tensor,
        settings: SearchSettings,
        noise: tuple[torch.Tensor, ...],
        replayed_action: torch.Tensor | None,
    ) -> Plan:
        """Search B roots; the result does not depend on which roots are searched together.

        Args:
            model: The world model, each call of it of any number of rows.
            root: Its output at the roots.
            task_ids: [B].
            action_mask: 1 for real, 0 for padded action dimensions [B, A]; padded ones of the
                plan's actions must be 0.
            settings: Sizes and constants.
            noise: What `draw_noise` returned, of these roots.
            replayed_action: [B, A], to be one of the candidates; None where there are none.
        """


def _concatenate(plans: Sequence[Plan]) -> Plan:
    """One plan of the plans of all chunks."""
    action, value = (torch.cat(parts) for parts in zip(*(plan[:2] for plan in plans), strict=True))
    candidates = [plan.candidates for plan in plans if plan.candidates is not None]
    weights = [plan.weights for plan in plans if plan.weights is not None]
    return Plan(
        action,
        value,
        torch.cat(candidates) if candidates else None,
        torch.cat(weights) if weights else None,
    )
