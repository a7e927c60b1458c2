"""A consecutive piece of one episode: what collection hands to the replay buffer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EpisodeChunk:
    """`L` consecutive transitions of one episode and the `L + 1` observations around them.

    Consecutive chunks of an episode chain: the last observation row of a chunk is the first row
    of the next one. `A` and `D` are the padded action and observation dims.

    Attributes:
        task_id: Task of the episode, in `[0, T)`.
        episode_id: Name of the episode, unique within its task.
        start: Step index within the episode of the first transition.
        observations: `[L + 1, D]`, padded observations.
        actions: `[L, A]`, the executed actions, in [-1, 1].
        rewards: `[L]`, raw rewards.
        terminated: Whether the last transition is a true termination. Wins over `truncated`.
        truncated: Whether the episode was cut off after the last transition.
        search_values: `[L]`, root values of the acting-time search.
        policy_means: `[L, A]`, of the improved policy of that search, before tanh.
        policy_stds: `[L, A]`, its standard deviation.
        searched_at: Updates made before that search.

    Raises:
        ValueError: The shapes disagree, there is no transition, or a number is not finite.
    """

    task_id: int
    episode_id: str
    start: int
    observations: FloatArray
    actions: FloatArray
    rewards: FloatArray
    terminated: bool
    truncated: bool
    search_values: FloatArray
    policy_means: FloatArray
    policy_stds: FloatArray
    searched_at: int = 0

    def __post_init__(self) -> None:
        """Converts the arrays to float32 and checks them."""
        ranks = {
            "observations": 2,
            "actions": 2,
            "rewards": 1,
            "search_values": 1,
            "policy_means": 2,
            "policy_stds": 2,
        }
        for name, rank in ranks.items():
            array = np.asarray(getattr(self, name), dtype=np.float32)
            object.__setattr__(self, name, array)
            if array.ndim != rank:
                raise ValueError(f"{self}: {name} needs {rank} dimensions, got {array.shape}.")
            if not np.isfinite(array).all():
                raise ValueError(
                    f"{self}: {name} holds NaN or infinity; fix the environment or end the "
                    "episode before the simulation diverges."
                )
        self._check_lengths()

    def _check_lengths(self) -> None:
        length = len(self.rewards)
        if length == 0:
            raise ValueError(f"{self} has no transition; do not add empty chunks.")
        if self.start < 0:
            raise ValueError(f"{self}: start must be >= 0.")
        if len(self.observations) != length + 1:
            raise ValueError(
                f"{self}: {length} rewards need {length + 1} observations (the last one is the "
                f"state after the last transition), got {len(self.observations)}."
            )
        for name in ("actions", "search_values", "policy_means", "policy_stds"):
            if len(getattr(self, name)) != length:
                raise ValueError(
                    f"{self}: {name} has {len(getattr(self, name))} rows for {length} rewards."
                )
        for name in ("policy_means", "policy_stds"):
            shape = getattr(self, name).shape
            if self.actions.shape != shape:
                raise ValueError(
                    f"{self}: actions {self.actions.shape} and {name} {shape} must have the same "
                    "shape."
                )

    def __str__(self) -> str:
        """Names the chunk in messages."""
        return f"chunk of task {self.task_id}, episode {self.episode_id!r}, step {self.start}"

    def __len__(self) -> int:
        """Number of transitions `L`."""
        return len(self.rewards)
