"""An environment that notes in a file, for all processes, that it was built and that it is used."""

from __future__ import annotations

import functools
import os
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from helpers.scripted_env import ScriptedEnv

from rllib_ezm.tasks import TaskSpec


class CountedEnv(ScriptedEnv):
    """Appends "built PROCESS ID" to the file, and "stepped PROCESS ID" in its first step."""

    def __init__(self, file: Path, **script: Any) -> None:
        super().__init__(**script)
        self._file, self._id, self._stepped = file, uuid.uuid4().hex, False
        self._note("built")

    def step(self, action: Any) -> Any:
        if not self._stepped:
            self._stepped = True
            self._note("stepped")
        return super().step(action)

    def _note(self, what: str) -> None:
        with self._file.open("a") as file:
            file.write(f"{what} {os.getpid()} {self._id}\n")


class Built(NamedTuple):
    """How many environments were stepped, and the processes that built the others."""

    num_stepped: int
    idle: list[int]


def counted_tasks(file: Path, *lengths: int) -> list[TaskSpec]:
    """Tasks of these episode lengths and of 2, 3, ... observation dims, noted in one file."""
    return [
        TaskSpec(
            f"counted-{index}",
            functools.partial(CountedEnv, file, obs_shape=(2 + index,), truncate_at=length),
            max_episode_steps=10 * length,
        )
        for index, length in enumerate(lengths)
    ]


def read_counts(file: Path) -> Built:
    """What the environments have noted so far."""
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    stepped = {env for what, _, env in lines if what == "stepped"}
    idle = [int(pid) for what, pid, env in lines if what == "built" and env not in stepped]
    return Built(len(stepped), idle)
