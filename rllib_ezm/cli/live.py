"""Lines at the bottom of a terminal that redraw themselves, while others scroll by above them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

REDRAWS_PER_S = 4
FRAMES = "|/-\\"


def is_live(stream: TextIO) -> bool:
    """Whether a stream is a terminal that lines can be redrawn on."""
    return stream.isatty() and not Console(file=stream).is_dumb_terminal


def show(lines: Callable[[], list[str]], stream: TextIO | None = None) -> Live:
    """Start to show lines; `stop()` of what is returned leaves the last ones on the screen.

    Args:
        lines: What to show now; called from another thread, several times a second.
        stream: The terminal; None for the standard output.
    """

    def draw() -> Text:
        frame = FRAMES[int(time.monotonic() * REDRAWS_PER_S) % len(FRAMES)]
        text = "\n".join(f"{frame} {line}" for line in lines())
        return Text(text, no_wrap=True, overflow="ellipsis")

    live = Live(
        console=Console(file=stream or sys.stdout),
        get_renderable=draw,
        refresh_per_second=REDRAWS_PER_S,
    )
    live.start()
    return live
