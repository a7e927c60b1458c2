"""Returns of simple policies and of published methods, shipped as small tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

DATA = resources.files("rllib_ezm.report") / "data"
POLICIES = ("random", "do_nothing")


@dataclass(frozen=True)
class Source:
    """Where published numbers come from.

    Attributes:
        citation: The paper, and how its numbers were read.
        x_axis: What their steps count.
        unit: The unit of the steps, for legends.
    """

    citation: str
    x_axis: str
    unit: str


@dataclass(frozen=True)
class PublishedScore:
    """A published return.

    Attributes:
        task: Name of the task.
        method: Name of the method.
        steps: Steps it was measured at, see `Source.x_axis`.
        return_mean: Mean return.
        source: Where it comes from.
    """

    task: str
    method: str
    steps: int
    return_mean: float
    source: Source

    def env_steps(self, action_repeat: int) -> float:
        """Where it belongs on an axis of env steps of `action_repeat` simulator steps each."""
        return self.steps / action_repeat


def reference_returns() -> dict[tuple[str, str], float]:
    """Mean return by (task, policy); the policies are those of `POLICIES`.

    On HumanoidBench, doing nothing is the constant action that aims at the start pose.
    """
    return {
        (row["task"], row["policy"]): float(row["return_mean"])
        for file in ("reference_returns.csv", "humanoid_bench_returns.csv")
        for row in _rows(file)
    }


def published_scores(tasks: Iterable[str]) -> list[PublishedScore]:
    """The published returns of those tasks whose names match exactly."""
    wanted = set(tasks)
    sources = {
        row["source"]: Source(row["citation"], row["x_axis"], row["unit"])
        for row in _rows("published_sources.csv")
    }
    return [
        PublishedScore(
            task=row["task"],
            method=row["method"],
            steps=int(row["steps"]),
            return_mean=float(row["return_mean"]),
            source=sources[row["source"]],
        )
        for row in _rows("published_scores.csv")
        if row["task"] in wanted
    ]


@cache
def _rows(file: str) -> list[dict[str, str]]:
    with (DATA / file).open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
