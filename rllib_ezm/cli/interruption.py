"""Ctrl-C, SIGTERM and a closed terminal: every running trial is saved before the command ends.

The signal handler only takes a note. Tune's loop runs in the same thread and calls `SaveOnSignal`
several times a second, which asks each running trial for an early end of its iteration. The
scheduler then pauses the trial: Tune saves it and ends its actor. When the last one is saved,
Tune's loop is ended as its own handler of Ctrl-C would end it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
"""Signal -> exit code, 128 + its number as in a shell."""

INTERRUPTED = frozenset(EXIT_CODES.values())
"""Exit codes of a command that a signal has ended."""

HANGUP_FILE = "hangup.log"
"""In the experiment's folder: what is printed after the terminal was closed."""

SAME_KEY_PRESS_S = 0.5
"""A wrapper may pass a Ctrl-C on that the terminal has already sent to all of its processes."""


SHOW_CURSOR = b"\x1b[?25h"
"""A terminal's cursor is hidden while lines are redrawn."""


class Interruption:
    """What the signals have asked for so far.

    Attributes:
        signal: The first one; None before it.
        training: Whether there is something to save. Without it, a signal ends the command at once.
        folder: The experiment's folder.
        given_up: What an end without saving would lose, for a second Ctrl-C.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all signals."""
        self.signal: signal.Signals | None = None
        self.training = False
        self.folder: Path | None = None
        self.given_up: list[str] = []
        self._received_at = 0.0
        self._terminals: list[int] = []

    @property
    def exit_code(self) -> int:
        """Of the command; 130 if there was no signal, as for Ctrl-C at a prompt."""
        return EXIT_CODES[self.signal or signal.SIGINT]

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Within the block, signals are noted; afterwards they act as before."""
        self.clear()
        if threading.current_thread() is not threading.main_thread():
            yield  # signals reach the main thread only
            return
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
        self._terminals = [fd for fd in (1, 2) if os.isatty(fd)]
        before = {signum: signal.getsignal(signum) for signum in EXIT_CODES}
        self.handle()
        try:
            yield
        finally:
            self.training = False
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def handle(self) -> None:
        """Take the signals over; once more after `ray.init`, which takes SIGTERM over."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in EXIT_CODES:
            signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: Any) -> None:
        received = signal.Signals(signum)
        if received is signal.SIGHUP:
            self._leave_terminal()
        now, last = time.monotonic(), self._received_at
        self._received_at = now
        if self.signal is None:
            self.signal = received
            if not self.training:
                raise KeyboardInterrupt
        elif received is signal.SIGINT and now - last > SAME_KEY_PRESS_S:
            self._stop_at_once()

    def _stop_at_once(self) -> None:
        """Ray's processes end by themselves when this one is gone."""
        for terminal in self._terminals:
            os.write(terminal, SHOW_CURSOR)
        lines = ["Stopping at once.", *self.given_up]
        os.write(2, ("\n".join(lines) + "\n").encode())
        os._exit(EXIT_CODES[signal.SIGINT])

    def _leave_terminal(self) -> None:
        """Print to a file from now on: a closed terminal takes nothing."""
        place = os.devnull if self.folder is None else str(self.folder / HANGUP_FILE)
        try:
            file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        except OSError:
            file = os.open(os.devnull, os.O_WRONLY)
        for terminal in self._terminals:
            os.dup2(file, terminal)
        os.close(file)


INTERRUPTION = Interruption()
"""Of this process: signals belong to processes."""


@contextmanager
def away_from_signals() -> Iterator[None]:
    """Processes that are started in the block get neither Ctrl-C nor the terminal's hangup.

    They inherit that these signals are blocked. Ray also makes this process the leader of a group
    of its own, which a terminal or a script sends no Ctrl-C to: that is undone.
    """
    group = os.getpgrp()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        if os.getpgrp() != group:
            os.setpgid(0, group)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def say(line: str) -> None:
    """Print a line, also while the standard output is not what it was."""
    click.echo(line)
    sys.stdout.flush()
