"""`EnvProcess`: one process of environments, as its env runner sees it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import cloudpickle

from rllib_ezm.tasks.env_process import Raised, Reply, Request, Setup
from rllib_ezm.tasks.watchdog import Death, read_death

logger = logging.getLogger(__name__)

START = "import sys; sys.path[:] = {path!r}; import rllib_ezm.tasks.env_process as process; "
START += "process.main({file_descriptor})"
"""Before `sys.path` is ours it imports only `sys`, whose name no file of the user can take."""

CLOSING_S = 5.0
"""How long a process may take to close its environments before it is killed."""


class EnvProcess:
    """One process, which begins with the first request.

    Args:
        slots: Numbers of its slots.
        setup: What they are made of.
    """

    def __init__(self, slots: list[int], setup: Setup) -> None:
        self.slots = slots
        self.exit_code: int | None = None
        self._setup = setup
        self._popen: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, if it runs."""
        if self._popen is None or self._popen.poll() is not None:
            return None
        return self._popen.pid

    def send(self, request: Request) -> None:
        """Ask it; where it has ended, `receive` says so."""
        try:
            if self._connection is None:
                self._start()
            self._connection.send(request)  # type: ignore[union-attr]
        except (BrokenPipeError, ConnectionResetError):
            logger.debug("process %s has ended before it was asked", self.pid)

    def receive(self) -> Reply | Raised | None:
        """Its answer; None if it has ended instead."""
        try:
            answer: Reply | Raised = self._connection.recv()  # type: ignore[union-attr]
        except (EOFError, ConnectionResetError):
            return None
        return answer

    def _start(self) -> None:
        ours, theirs = Pipe()
        with theirs:
            code = START.format(path=sys.path, file_descriptor=theirs.fileno())
            self._popen = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno()],
                env={"OMP_NUM_THREADS": "1", **os.environ},
            )
            self._connection = ours
        ours.send_bytes(cloudpickle.dumps(self._setup))

    def bury(self) -> Death | None:
        """Forget a process that has ended; returns what it died of, if that was an environment."""
        self.end()
        file = Path(self._setup.black_box)
        death = read_death(file)
        file.unlink(missing_ok=True)
        return death

    def close(self) -> None:
        """Close the connection, upon which the process ends."""
        if self._connection is not None:
            self._connection.close()

    def end(self) -> None:
        """Wait until it has ended; kill it if that takes too long."""
        self.close()
        if self._popen is not None:
            try:
                self.exit_code = self._popen.wait(CLOSING_S)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self.exit_code = self._popen.wait()
        self._connection = self._popen = None
