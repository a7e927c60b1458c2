"""A task's own observations and actions, as plain data: flattening the one, scaling the other.

NumPy only: the environments of training and a policy that acts without them share it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class TaskSpaces:
    """Spaces of one task, flat.

    Attributes:
        observation: Shape of each part by its key, in order; a single part has the key "".
        action_shape: Shape of an action.
        action_low: Lower bounds, flat.
        action_high: Upper bounds, flat.
        action_dtype: Name of the dtype of an action.
    """

    observation: Mapping[str, tuple[int, ...]]
    action_shape: tuple[int, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    action_dtype: str

    @property
    def obs_dim(self) -> int:
        """Numbers in an observation."""
        return sum(math.prod(shape) for shape in self.observation.values())

    @property
    def action_dim(self) -> int:
        """Numbers in an action."""
        return len(self.action_low)

    def flatten(self, observation: Any, width: int) -> NDArray[np.float32]:
        """An observation in a row of zeros of `width`, parts in their order.

        Raises:
            ValueError: It is not made of numbers of the shapes of its space.
        """
        row = np.zeros(width, dtype=np.float32)
        start = 0
        for key, shape in self.observation.items():
            part = np.asarray(observation[key] if key else observation)
            if part.shape != shape or part.dtype.kind not in "biuf":
                raise ValueError(
                    f"the observation{f' {key!r}' if key else ''} must be numbers of the shape "
                    f"{shape} that its space says, got {part.dtype} of {part.shape}"
                )
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
                row[start : start + part.size] = part.ravel()
            start += part.size
        return row

    def to_bounds(self, action: NDArray[Any]) -> NDArray[Any]:
        """Own action of a padded one [A] in [-1, 1], clipped and scaled to the bounds.

        Raises:
            ValueError: A number of the own dims is not finite.
        """
        own = np.asarray(action, dtype=np.float64)[: self.action_dim]
        if not np.isfinite(own).all():
            raise ValueError(f"the action must be finite, got {own}")
        low, high = np.asarray(self.action_low), np.asarray(self.action_high)
        fraction = (np.clip(own, -1.0, 1.0) + 1.0) / 2.0
        scaled: NDArray[Any] = np.clip(low + fraction * (high - low), low, high)
        return scaled.astype(self.action_dtype).reshape(self.action_shape)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TaskSpaces:
        """From `to_json`."""
        return cls(
            {key: tuple(shape) for key, shape in values["observation"].items()},
            tuple(values["action_shape"]),
            tuple(values["action_low"]),
            tuple(values["action_high"]),
            values["action_dtype"],
        )
