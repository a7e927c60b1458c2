"""A process that holds some slots of an env runner: what it is asked, answers, and runs.

It imports neither torch nor Ray. It ends when its env runner closes the connection or is gone.

Legend: S slots of this process, D padded observation dim, A padded action dim.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_ezm.tasks.failure import EnvironmentFailedError
from rllib_ezm.tasks.multitask import TaskSet
from rllib_ezm.tasks.pool import EnvPool
from rllib_ezm.tasks.slot import TaskSlot
from rllib_ezm.tasks.watchdog import BlackBox, Watchdog

PARENT_CHECK_S = 1.0
"""How often a process looks whether its env runner is still there."""


class Setup(NamedTuple):
    """What the slots of a process are made of; see `TaskSlot`."""

    tasks: TaskSet
    slot_tasks: Sequence[int]
    termination: str
    max_consecutive_failures: int
    timeout_s: float | None
    black_box: str


STEP, RESET, WAIT = range(3)
"""What a slot is asked for; one that waits gives numbers without a meaning."""


class Request(NamedTuple):
    """One decision, or a new episode, of each slot.

    Attributes:
        calls: S of the constants above.
        actions: [S, A], of the slots that step.
        seeds: S seeds of the resets.
        tasks: S tasks of the next episodes.
        options: Of the resets.
    """

    calls: Sequence[int]
    actions: NDArray[np.float32]
    seeds: Sequence[int | None]
    tasks: Sequence[int]
    options: dict[str, Any] | None


class Reply(NamedTuple):
    """What came of it.

    Attributes:
        obs: [S, D] float32.
        rewards: [S] float64.
        terminated: [S].
        truncated: [S].
        infos: S dicts.
    """

    obs: NDArray[np.float32]
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    infos: Sequence[dict[str, Any]]


class Raised(NamedTuple):
    """An exception: of an environment that failed too often, or of anything else."""

    environment_failed: bool
    message: str


class Slots:
    """The slots of one process.

    Args:
        setup: What they are made of.
    """

    def __init__(self, setup: Setup) -> None:
        pool = EnvPool(setup.tasks, setup.termination)
        self._nothing = np.zeros(setup.tasks.obs_dim, np.float32)
        self._watchdog = Watchdog(setup.timeout_s, BlackBox(Path(setup.black_box)))
        self._slots = [
            TaskSlot(
                setup.tasks,
                task,
                pool=pool,
                max_consecutive_failures=setup.max_consecutive_failures,
                watchdog=self._watchdog,
            )
            for task in setup.slot_tasks
        ]

    def answer(self, request: Request) -> Reply:
        """Step or reset every slot, one after the other.

        Raises:
            EnvironmentFailedError: See `TaskSlot`.
        """
        with self._watchdog.several_calls():
            results = [self._one(index, request) for index in range(len(self._slots))]
        observations, rewards, terminated, truncated, infos = zip(*results, strict=True)
        return Reply(
            np.stack(observations),
            np.array(rewards, np.float64),
            np.array(terminated, np.bool_),
            np.array(truncated, np.bool_),
            infos,
        )

    def _one(
        self, index: int, request: Request
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        slot, call = self._slots[index], request.calls[index]
        if call == WAIT:
            return self._nothing, 0.0, False, False, {}
        slot.next_task = request.tasks[index]
        if call == STEP:
            obs, *rest = slot.step(request.actions[index])
            return obs["obs"], *rest
        obs, info = slot.reset(seed=request.seeds[index], options=request.options)
        return obs["obs"], 0.0, False, False, info

    def close(self) -> None:
        """Close the environments."""
        for slot in self._slots:
            slot.close()


def main(file_descriptor: int) -> None:
    """Entry of the process: a pickled `Setup` comes first, then requests.

    Args:
        file_descriptor: Of its end of the connection.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the env runner closes
    threading.Thread(target=_end_without, args=(os.getppid(),), daemon=True).start()
    with Connection(file_descriptor) as connection:
        try:
            _serve(connection)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return  # the env runner has closed the connection, or is gone


def _serve(connection: Connection) -> None:
    """Answer requests until the connection is closed."""
    setup = connection.recv_bytes()
    try:
        slots = Slots(pickle.loads(setup))
    except Exception:  # noqa: BLE001 - the env runner raises it
        connection.recv()
        connection.send(Raised(False, traceback.format_exc()))
        return
    try:
        while True:
            _send(connection, _answer(slots, connection.recv()))
    finally:
        slots.close()


def _answer(slots: Slots, request: Request) -> Reply | Raised:
    try:
        return slots.answer(request)
    except EnvironmentFailedError as error:
        return Raised(True, str(error))
    except Exception:  # noqa: BLE001 - the env runner raises it
        return Raised(False, traceback.format_exc())


def _send(connection: Connection, answer: Reply | Raised) -> None:
    """Send an answer; of infos that cannot be pickled, what can."""
    try:
        data = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
    except Exception:  # noqa: BLE001 - objects of environments may raise anything there
        assert isinstance(answer, Reply)
        infos = [
            {key: value for key, value in info.items() if _can_be_pickled((key, value))}
            for info in answer.infos
        ]
        data = pickle.dumps(answer._replace(infos=infos), pickle.HIGHEST_PROTOCOL)
    connection.send_bytes(data)


def _can_be_pickled(thing: Any) -> bool:
    try:
        pickle.dumps(thing)
    except Exception:  # noqa: BLE001 - see above
        return False
    return True


def _end_without(parent: int) -> None:
    """End this process when its env runner is gone, also where an environment takes for ever."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)
