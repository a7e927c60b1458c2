"""Actions of a trained agent for observations of its tasks, in the environments' own units.

Legend: B observations, D padded observation dim, A padded action dim, T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rllib_ezm.models.masks import prefix_mask
from rllib_ezm.models.policy_distribution import mode_squashed, sample_squashed
from rllib_ezm.models.world_model import WorldModel, WorldModelSpec
from rllib_ezm.policy.description import PolicyDescription
from rllib_ezm.search.registry import make_planner
from rllib_ezm.search.settings import SearchSettings, search_settings
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.suggestion import did_you_mean

PlannerName = Literal["search", "mean"]

ONLY_TRAINED = ("projector.", "predictor.")
"""Parameters of the world model that only the consistency loss reads."""


class Policy:
    """A trained agent.

    Args:
        description: Its tasks and networks.
        weights: Of its world model, without a prefix.
        device: Where it runs.
        seed: Of the search's random numbers.
        planner: The planner's class, of an agent that was trained with one of your own.

    Raises:
        UserError: The planner is unknown, or the weights do not fit.
    """

    def __init__(
        self,
        description: PolicyDescription,
        weights: Mapping[str, torch.Tensor],
        *,
        device: str | torch.device = "cpu",
        seed: int = 0,
        planner: type | None = None,
    ) -> None:
        self.description = description
        options = {**description.model, **({} if planner is None else {"planner": planner})}
        self._device, self._seed = torch.device(device), seed
        self.action_mask = prefix_mask(options["action_dims"]).to(self._device)
        self.model = _world_model(options, weights).to(self._device).eval()
        try:
            self._planner = make_planner(options, self.model, self.action_mask)
        except ValueError as error:
            raise UserError(
                f"{error} The agent was trained with it: load_policy(..., planner=ITS_CLASS)."
            ) from error
        self._searches = {
            True: search_settings(options["evaluation_search"]),
            False: search_settings(options["search"]),
        }
        self.reset()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, by id."""
        return tuple(task.name for task in self.description.tasks)

    def search_settings(self, *, deterministic: bool) -> SearchSettings | None:
        """Of the search in evaluation, or of that in training; None: the mean acts."""
        return self._searches[deterministic]

    def reset(self, seed: int | None = None) -> None:
        """Begin again with the random numbers of a seed; None: of the policy's own.

        Between two calls a policy remembers nothing else: it needs no reset between episodes.
        """
        with self._random_numbers(keep=False):
            torch.manual_seed(self._seed if seed is None else seed)
            self._random_state = torch.get_rng_state()

    def predict(
        self,
        observation: Any,
        task: str | None = None,
        *,
        planner: PlannerName = "search",
        deterministic: bool = True,
    ) -> NDArray[Any]:
        """Actions within the bounds and of the shape of the task's action space.

        Args:
            observation: As the environment returns it, or B of them in an array (arrays, for a
                dict).
            task: Name of its task; may be left out of a policy with one task.
            planner: "search", or the "mean" of the policy without a search.
            deterministic: Act as in evaluation. False: as in training, with its exploration; the
                mean becomes a sample of the policy.

        Returns:
            One action, or B in an array [B, ...].

        Raises:
            ValueError: The task or planner is unknown, or the observation does not fit or is not
                finite.
        """
        if planner not in ("search", "mean"):
            raise ValueError(f'planner={planner!r}: use "search" or "mean".')
        task_id = self.task_id(task)
        spaces = self.description.tasks[task_id].spaces
        rows, is_batch = self._rows(observation, task_id)
        with torch.no_grad(), self._random_numbers():
            padded = self._act(rows, task_id, planner, deterministic)
        actions = [spaces.to_bounds(action) for action in padded.cpu().numpy()]
        return np.stack(actions) if is_batch else actions[0]

    def value(self, observation: Any, task: str | None = None) -> float | NDArray[np.float32]:
        """Discounted return that the value heads expect, their mean; one number, or B of them.

        Args:
            observation: See `predict`.
            task: See `predict`.
        """
        task_id = self.task_id(task)
        rows, is_batch = self._rows(observation, task_id)
        with torch.no_grad():
            task_ids = self._ids(task_id, len(rows))
            embedding = self.model.embed(task_ids)
            latent = self.model.represent(rows, task_ids, embedding)
            prediction = self.model.predict(latent, embedding, root=True)
            values = self.model.value_support.decode(prediction.value_logits).mean(dim=0)
        return values.cpu().numpy() if is_batch else float(values[0])

    def _act(
        self, rows: torch.Tensor, task_id: int, planner: str, deterministic: bool
    ) -> torch.Tensor:
        """Padded actions [B, A] in [-1, 1] for observations [B, D]."""
        task_ids = self._ids(task_id, len(rows))
        root = self._planner.root(rows, task_ids).root
        settings = self._searches[deterministic]
        if planner == "search" and settings is not None:
            return self._planner.plan(root, task_ids, settings).action
        mask = self.action_mask[task_ids]
        if deterministic:
            return mode_squashed(root.mean, mask)
        return sample_squashed(root.mean, root.log_std, torch.randn_like(root.mean), 1.0, mask)

    def _ids(self, task_id: int, rows: int) -> torch.Tensor:
        return torch.full((rows,), task_id, device=self._device)

    def task_id(self, task: str | None) -> int:
        """Its number; None: of the only task.

        Raises:
            ValueError: There is no such task.
        """
        if task is None and len(self.tasks) == 1:
            return 0
        if task not in self.tasks:
            raise ValueError(
                f"task={task!r} is none of this policy's.{did_you_mean(str(task), self.tasks)} "
                f"Its tasks: {', '.join(self.tasks)}."
            )
        return self.tasks.index(task)

    def _rows(self, observation: Any, task_id: int) -> tuple[torch.Tensor, bool]:
        """Padded observations [B, D], and whether they came as a batch."""
        spaces = self.description.tasks[task_id].spaces
        width = max(self.description.model["obs_dims"])
        key, shape = next(iter(spaces.observation.items()))
        first = np.asarray(observation[key] if key else observation)
        is_batch = first.ndim == len(shape) + 1
        single = [observation] if not is_batch else list(_unbatched(observation, len(first)))
        rows = np.stack([spaces.flatten(each, width) for each in single])
        if not np.isfinite(rows).all():
            raise ValueError("the observation holds NaN or infinity")
        return torch.as_tensor(rows, device=self._device), is_batch

    @contextmanager
    def _random_numbers(self, keep: bool = True) -> Iterator[None]:
        """Torch's generator with this policy's own numbers, and then as it was."""
        with torch.random.fork_rng(devices=[]):
            if keep:
                torch.set_rng_state(self._random_state)
            yield
            if keep:
                self._random_state = torch.get_rng_state()


def _unbatched(observation: Any, size: int) -> Iterator[Any]:
    for row in range(size):
        if isinstance(observation, Mapping):
            yield {key: part[row] for key, part in observation.items()}
        else:
            yield observation[row]


def _world_model(options: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> WorldModel:
    observation_mask = prefix_mask(options["obs_dims"])
    sizes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in options["world_model"].items()
    }
    spec = WorldModelSpec(
        obs_dim=observation_mask.shape[1],
        action_dim=max(options["action_dims"]),
        num_tasks=len(observation_mask),
        **sizes,
    )
    model = WorldModel(spec, observation_mask)
    del model.projector, model.predictor
    used = {name: x for name, x in weights.items() if not name.startswith(ONLY_TRAINED)}
    try:
        model.load_state_dict(used)
    except RuntimeError as error:
        raise UserError(f"The weights do not fit the networks: {error}") from error
    return model
