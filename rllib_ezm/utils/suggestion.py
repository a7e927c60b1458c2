"""Near matches of a mistyped word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns " Did you mean a, b?", or nothing."""
    matches = difflib.get_close_matches(word, list(known), n=3)
    return f" Did you mean {', '.join(matches)}?" if matches else ""
