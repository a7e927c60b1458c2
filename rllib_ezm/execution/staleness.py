"""How old, in updates, what an asynchronous run acts with and learns from was when it was used."""

from __future__ import annotations

from collections import deque

import numpy as np

ACTING, TARGETS, PRIORITIES = KINDS = ("acting", "targets", "priorities")
WINDOW = 1000


class Staleness:
    """Ages of acting weights, of the weights behind targets, and of the priorities of a sample."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[int]] = {kind: deque(maxlen=WINDOW) for kind in KINDS}
        self._unreported: dict[str, list[int]] = {kind: [] for kind in KINDS}

    def record(self, kind: str, age: int) -> None:
        """Count one use.

        Args:
            kind: One of `KINDS`.
            age: Updates made since.
        """
        self._recent[kind].append(age)
        self._unreported[kind].append(age)

    def quantiles(self) -> dict[str, dict[str, float]]:
        """Median, 95th percentile and maximum of the last 1,000 uses, of each kind that has any."""
        return {
            kind: {
                name: float(value)
                for name, value in zip(
                    ("p50", "p95", "max"), np.percentile(ages, (50, 95, 100)), strict=True
                )
            }
            for kind, ages in self._recent.items()
            if ages
        }

    def pop_ages(self) -> dict[str, list[int]]:
        """The ages of all uses since the last call, of each kind that has any."""
        ages_of = {kind: ages for kind, ages in self._unreported.items() if ages}
        self._unreported = {kind: [] for kind in KINDS}
        return ages_of
