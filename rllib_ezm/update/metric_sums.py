"""Metrics of several updates, summed on the device and read from it in one transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


class MetricSums:
    """Adds up scalars that have the same names in every update.

    Args:
        summed: Names whose sum is wanted; of all others it is the mean.
    """

    def __init__(self, summed: Sequence[str]) -> None:
        self.summed = summed
        self.num_updates = 0
        self._names: list[str] = []
        self._sums: torch.Tensor | None = None

    @torch.no_grad()
    def add(self, metrics: Mapping[str, torch.Tensor]) -> None:
        """Add the scalars of one update; nothing leaves the device."""
        self._names = [*metrics]
        values = torch.stack([value.float() for value in metrics.values()])
        self._sums = values if self._sums is None else self._sums + values.to(self._sums)
        self.num_updates += 1

    def read(self) -> dict[str, float]:
        """Mean or sum of each since the last time, as numbers; then begin anew."""
        if self._sums is None:
            return {}
        sums, count = self._sums.tolist(), self.num_updates
        self._sums, self.num_updates = None, 0
        return {
            name: value if name in self.summed else value / count
            for name, value in zip(self._names, sums, strict=True)
        }

    def get_state(self) -> dict[str, Any]:
        """What has been added since the last reading."""
        sums = torch.zeros(0) if self._sums is None else self._sums.cpu()
        return {"num_updates": self.num_updates, "names": self._names, "sums": sums.numpy()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `get_state`."""
        self.num_updates = state["num_updates"]
        self._names = list(state["names"])
        self._sums = torch.as_tensor(state["sums"]) if self.num_updates else None
