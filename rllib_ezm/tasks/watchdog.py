"""Calls of an environment that hang are ended, and what ends the process can be told afterwards."""

from __future__ import annotations

import faulthandler
import mmap
import re
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rllib_ezm.tasks.failure import EnvironmentTimeoutError
from rllib_ezm.tasks.vector import SlotVector

T = TypeVar("T")

ENV_STEP_TIMEOUT_S = 60.0
"""Default of `env_step_timeout_s`, see `Watchdog`."""

BUILDING, RESET, STEP, CLOSE = CALLS = (
    "building the environment",
    "reset()",
    "step()",
    "close()",
)

BUILDING_FACTOR = 5
"""Building an environment may take so many times as long as a step."""

EXIT_FACTOR = 1.5
"""After so many times its limit, a call that no exception can end, ends the process."""

_RECORD = struct.Struct("<ii")
_NOTHING = (-1, -1)


class Death(NamedTuple):
    """The end of a process inside of an environment.

    Attributes:
        task_id: Whose environment it was.
        call: One of `CALLS`.
        place: Line of code where it hung, "file:line"; empty if it died without a word.
    """

    task_id: int
    call: str
    place: str

    def describe(self, name: str, timeout_s: float | None) -> str:
        """One line; `name` is the task's."""
        if self.place:
            return f"{name}: {self.call} took longer than {_allowed(timeout_s)} ({self.place})"
        return f"{name}: the process died in {self.call}, as after os._exit() or a crash"


class BlackBox:
    """What a process does inside of environments, in a file that outlives it.

    Memory shared with a file: a record costs a tenth of a microsecond, and the kernel keeps it
    whatever ends the process.

    Args:
        file: The same for a process and the one that replaces it.
    """

    def __init__(self, file: Path) -> None:
        trace = _trace_of(file)
        self.previous = read_death(file)
        file.write_bytes(_RECORD.pack(*_NOTHING))
        self.trace = trace.open("w+")
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), _RECORD.size)

    def record(self, task_id: int, call: str) -> None:
        """A call of a task's environment begins."""
        _RECORD.pack_into(self._memory, 0, task_id, CALLS.index(call))

    def clear(self) -> None:
        """No call is under way."""
        _RECORD.pack_into(self._memory, 0, *_NOTHING)


class Watchdog:
    """Ends calls of environments that take too long.

    First by an `EnvironmentTimeoutError` inside of the call, from the signal SIGALRM. This reaches
    Python code, sleeping and waiting, not loops in C, and needs the main thread. If the call goes
    on, the process is ended with a stack dump in its black box, so that Ray replaces it. A process
    without a black box is the driver's: it is not ended, only the stack is printed.

    Args:
        timeout_s: Seconds that one `reset` or `step` may take, building an environment five times
            as long; None: any time.
        black_box: Of a process that Ray replaces when it ends.
    """

    def __init__(self, timeout_s: float | None = None, black_box: BlackBox | None = None) -> None:
        self.timeout_s, self.black_box = timeout_s, black_box
        self._exit_armed_at: float | None = None
        self._more_follow = False
        self._call_limit: float = 0.0

    def guard(self, task_id: int, call: str, function: Callable[..., T], *args: Any) -> T:
        """`function(*args)`, a call of a task's environment.

        Args:
            task_id: Whose environment it is.
            call: One of `CALLS`.
            function: The call.
            *args: Its arguments.

        Raises:
            EnvironmentTimeoutError: It took too long.
        """
        if self.black_box is not None:
            self.black_box.record(task_id, call)
        limit = self.timeout_s and self.timeout_s * (BUILDING_FACTOR if call == BUILDING else 1)
        if limit is not None:
            self._arm(limit)
        try:
            return function(*args)
        finally:
            if limit is not None:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
            if self.black_box is not None:
                self.black_box.clear()
            if not self._more_follow:
                self._disarm_exit()

    @contextmanager
    def several_calls(self) -> Iterator[None]:
        """The calls in this block follow one another at once, and share what is slow to arm."""
        self._more_follow = True
        try:
            yield
        finally:
            self._more_follow = False
            self._disarm_exit()

    def _disarm_exit(self) -> None:
        """No call is under way: what follows may take any time."""
        if self._exit_armed_at is not None:
            faulthandler.cancel_dump_traceback_later()
            self._exit_armed_at = None

    def _arm(self, limit: float) -> None:
        now = time.monotonic()
        # To arm it costs 40 microseconds, so several short calls share one.
        if (
            self._exit_armed_at is None
            or now - self._exit_armed_at > limit / 4
            or limit > self._call_limit
        ):
            end, file = self.black_box is not None, sys.__stderr__
            if self.black_box is not None:
                file = self.black_box.trace
            if file is not None:
                faulthandler.dump_traceback_later(limit * EXIT_FACTOR, exit=end, file=file)
                self._exit_armed_at, self._call_limit = now, limit
        if threading.current_thread() is threading.main_thread() and self._may_use_alarm():
            signal.setitimer(signal.ITIMER_REAL, limit)

    def _may_use_alarm(self) -> bool:
        """Installs the handler; False where somebody else uses this signal."""
        current = signal.getsignal(signal.SIGALRM)
        owner = getattr(current, "__self__", None)
        if owner is self:
            return True
        if current not in (signal.SIG_DFL, signal.SIG_IGN) and not isinstance(owner, Watchdog):
            return False
        signal.signal(signal.SIGALRM, self._on_alarm)
        return True

    def _on_alarm(self, signum: int, frame: Any) -> None:
        raise EnvironmentTimeoutError(f"took longer than {_allowed(self.timeout_s)}")


class WatchedVectorEnv(SlotVector):
    """A vector environment whose slots share a watchdog."""

    def __init__(self, watchdog: Watchdog, *args: Any, **kwargs: Any) -> None:
        self._watchdog = watchdog
        super().__init__(*args, **kwargs)

    def reset(self, **kwargs: Any) -> Any:
        """Resets every slot."""
        with self._watchdog.several_calls():
            return super().reset(**kwargs)

    def step(self, actions: Any) -> Any:
        """Steps every slot."""
        with self._watchdog.several_calls():
            return super().step(actions)


def _allowed(timeout_s: float | None) -> str:
    return (
        f"env_step_timeout_s={timeout_s} of .tasks(...) allows (building an environment may take "
        f"{BUILDING_FACTOR} times as long): find out why it hangs, or raise that limit"
    )


def read_death(file: Path) -> Death | None:
    """What the process with this black box died of, if that was an environment."""
    trace = _trace_of(file)
    if not file.exists():
        return None
    task_id, call = _RECORD.unpack(file.read_bytes())
    if (task_id, call) == _NOTHING:
        return None
    # The main thread, in which environments run, comes last, and its latest call first.
    last_thread = trace.read_text().rpartition("Thread ")[2] if trace.exists() else ""
    place = re.search(r'File "(.*)", line (\d+)', last_thread)
    return Death(task_id, CALLS[call], ":".join(place.groups()) if place else "")


def _trace_of(file: Path) -> Path:
    return file.with_suffix(".trace")
