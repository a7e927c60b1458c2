"""Progress of `rllib evaluate` on the error stream: how many episodes of each task are over."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click
from rich.live import Live

from rllib_ezm.cli.live import is_live, show
from rllib_ezm.cli.progress import MOST_TASKS, format_duration, short_names

if TYPE_CHECKING:
    from rllib_ezm.algorithm.env_runner import PlayProgress

INTERVAL_S = 8.0
"""Between two lines where nothing is redrawn, unless an episode has ended."""


class EvaluationProgress:
    """Live on a terminal, lines elsewhere; a context manager."""

    def __init__(self) -> None:
        self._started_at = time.monotonic()
        self._last: PlayProgress | None = None
        self._printed: PlayProgress | None = None
        self._printed_at = self._started_at
        self._live: Live | None = None

    def __enter__(self) -> EvaluationProgress:
        if is_live(sys.stderr):
            self._live = show(lambda: [self._line()], sys.stderr)
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, progress: PlayProgress) -> None:
        """Called while the episodes are played."""
        self._last = progress
        if self._live is not None:
            return
        new = self._printed is None or self._printed.finished != progress.finished
        if new or time.monotonic() - self._printed_at >= INTERVAL_S:
            self._printed, self._printed_at = progress, time.monotonic()
            click.echo(self._line(), err=True)

    def _line(self) -> str:
        elapsed = f"[{format_duration(time.monotonic() - self._started_at)}]"
        if self._last is None:
            return f"{elapsed}  building environments"
        return f"{elapsed}  {format_progress(self._last)}"


def format_progress(progress: PlayProgress) -> str:
    """One line: episodes over, of each task where there are few, and the decision reached."""
    parts = [str(progress)]
    names = list(progress.episodes)
    if 1 < len(names) <= MOST_TASKS:
        parts += [
            f"{short} {progress.finished[name]}/{progress.episodes[name]}"
            for name, short in zip(names, short_names(names), strict=True)
        ]
    return "  ".join(parts)
