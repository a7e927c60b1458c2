"""Successive halving: after a fraction of the budget the worse half of the variants is dropped.

Decisions are in `halving.json` of the study's folder, so that a study that goes on keeps to them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from study_run import Run, write_json

HALVING_FILE = "halving.json"


@dataclass(frozen=True)
class Decision:
    """What was decided after a fraction of the budget.

    Attributes:
        fraction: Of the budget.
        scores: Mean normalized score of each variant, over its tasks and its seeds that have not
            failed; None where all have.
        dropped: The variants that do not go on.
    """

    fraction: float
    scores: dict[str, float | None]
    dropped: tuple[str, ...]


def decide(fraction: float, scores: dict[str, float | None]) -> Decision:
    """Drop the worse half of the variants, rounded down; of equal ones, the later.

    Args:
        fraction: Of the budget.
        scores: Mean score of each variant that is still there, None for one without any.
    """
    lowest = float("-inf")
    ranked = sorted(scores, key=lambda name: lowest if scores[name] is None else -scores[name])
    ranked.sort(key=lambda name: scores[name] is None)
    kept = len(ranked) - len(ranked) // 2
    return Decision(fraction, dict(scores), tuple(ranked[kept:]))


def scores_at(runs: Sequence[Run], fraction: float) -> dict[str, float | None]:
    """Mean score of each variant over the seeds that were evaluated after a fraction."""
    found: dict[str, list[float]] = {run.variant: [] for run in runs}
    for run in runs:
        evaluation = run.evaluation_at(fraction)
        if evaluation is not None and not run.state.failure:
            found[run.variant].append(evaluation["score"])
    return {name: float(np.mean(scores)) if scores else None for name, scores in found.items()}


def read_decisions(out: Path) -> list[Decision]:
    """The decisions of a study so far, in their order."""
    file = out / HALVING_FILE
    values = json.loads(file.read_text()) if file.is_file() else []
    return [Decision(v["fraction"], v["scores"], tuple(v["dropped"])) for v in values]


def decision_at(out: Path, runs: Sequence[Run], fraction: float) -> Decision:
    """The decision after a fraction: the one that was written down, or a new one."""
    decisions = read_decisions(out)
    for decision in decisions:
        if decision.fraction == fraction:
            return decision
    decision = decide(fraction, scores_at(runs, fraction))
    write_json(out / HALVING_FILE, [asdict(d) for d in (*decisions, decision)])
    return decision
