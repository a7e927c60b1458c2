"""Curves of runs as CSV, with the same columns whatever trained them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS = (
    "variant",
    "task",
    "seed",
    "decisions",
    "env_steps",
    "updates",
    "cpu_s",
    "wall_s",
    "return",
    "score",
    "episodes",
)
"""Of every curve. Decisions are the row's task's own; env steps are its simulator steps."""

Row = dict[str, Any]


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of curves with their header; what is no column is left out."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(file: Path) -> list[Row]:
    """The rows of a curve as text; none where there is no file."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
