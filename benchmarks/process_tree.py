"""CPU seconds of a process and all that it has started, from Linux's `/proc`.

A process that ends between two readings loses what it used since the last one: read every second.
One whose parent has gone (Ray's workers after a kill) is still followed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

Key = tuple[int, int]
"""Process id and start time in clock ticks since boot: ids are given again, pairs are not."""


@dataclass(frozen=True)
class Process:
    """A line of `/proc/PID/stat`.

    Attributes:
        key: What names it.
        parent: Process id of its parent.
        cpu_s: User and system seconds of all of its threads, without its children.
    """

    key: Key
    parent: int
    cpu_s: float


def read_process(pid: int) -> Process | None:
    """The process with an id; None where there is none, or only a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold anything
    if fields[0] in "ZX":
        return None
    seconds = (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
    return Process((pid, int(fields[19])), int(fields[1]), seconds)


def living_processes() -> list[Process]:
    """All processes of this machine that can be seen."""
    found = (read_process(int(path.name)) for path in Path("/proc").glob("[0-9]*"))
    return [process for process in found if process is not None]


class CpuMeter:
    """Adds up the CPU seconds of a process tree.

    Args:
        root: Process id of the root of the tree.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self._seconds: dict[Key, float] = {}

    def read(self) -> float:
        """CPU seconds of the tree up to now, in seconds; never less than before."""
        living = living_processes()
        children: dict[int, list[Process]] = {}
        for process in living:
            children.setdefault(process.parent, []).append(process)
        known = set(self._seconds)
        queue = [p for p in living if p.key[0] == self.root or p.key in known]
        seen: set[Key] = set()
        while queue:
            process = queue.pop()
            if process.key not in seen:
                seen.add(process.key)
                self._seconds[process.key] = process.cpu_s
                queue += children.get(process.key[0], [])
        return sum(self._seconds.values())

    def living(self) -> list[int]:
        """Ids of the processes of the tree, as of the readings, that are still there."""
        found = (read_process(pid) for pid, _ in self._seconds)
        return [p.key[0] for p in found if p is not None and p.key in self._seconds]
