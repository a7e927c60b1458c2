"""A warning where rewards or returns lie outside of what the model can represent."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

logger = logging.getLogger(__name__)


class SupportCheck:
    """Warns once of rewards, and once of discounted returns, that the supports cut off.

    Args:
        task_names: Names of the tasks, by their ids.
        reward_support: (low, high) of the representable rewards per decision.
        value_support: (low, high) of the representable discounted returns.
        discount: Per decision.
    """

    def __init__(
        self,
        task_names: Sequence[str],
        *,
        reward_support: tuple[float, float],
        value_support: tuple[float, float],
        discount: float,
    ) -> None:
        self._names, self._discount = task_names, discount
        self._supports = {"reward_support": reward_support, "value_support": value_support}
        self._ongoing: dict[str, tuple[float, float]] = {}

    def add(self, task_id: int, episode_id: str, rewards: np.ndarray, *, done: bool) -> None:
        """A chunk of an episode: rewards of its L decisions [L]."""
        if not self._supports or not len(rewards):
            return
        largest = float(rewards[np.abs(rewards).argmax()])
        self._check("reward_support", task_id, "a reward", largest)
        total, weight = self._ongoing.pop(episode_id, (0.0, 1.0))
        total += weight * float(rewards @ self._discount ** np.arange(len(rewards)))
        if not done:
            self._ongoing[episode_id] = total, weight * self._discount ** len(rewards)
        self._check("value_support", task_id, "a discounted return", total)

    def _check(self, setting: str, task_id: int, what: str, number: float) -> None:
        if setting not in self._supports:
            return
        low, high = self._supports[setting]
        if low <= number <= high:
            return
        del self._supports[setting]
        bound = rounded_up(2.0 * abs(number))
        logger.warning(
            "%s: %s of %g is outside of %s=(%g, %g), so the model takes it for its end. Start with "
            ".world_model(%s=(%g, %g)), or scale the rewards.",
            self._names[task_id],
            what,
            number,
            setting,
            low,
            high,
            setting,
            -bound,
            bound,
        )


def rounded_up(number: float) -> float:
    """The next number above a positive one that has a single digit and zeros."""
    unit = 10.0 ** math.floor(math.log10(number))
    return float(math.ceil(number / unit) * unit)
