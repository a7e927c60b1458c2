"""Names of files for names that anyone may have chosen, such as those of tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable

LONGEST = 100
"""Characters; file systems take 255, with the suffix and the folder's own limits."""


def file_names(names: Iterable[str]) -> list[str]:
    """Readable file names without a suffix, in order: no two alike, and none leaves its folder.

    Characters that are awkward in file names become "_". Where that makes two alike, also on file
    systems that ignore case, the later one gets a number.
    """
    taken: set[str] = set()
    chosen = []
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip(".")[:LONGEST] or "_"
        unique, number = stem, 1
        while unique.casefold() in taken:
            number += 1
            unique = f"{stem}-{number}"
        taken.add(unique.casefold())
        chosen.append(unique)
    return chosen
