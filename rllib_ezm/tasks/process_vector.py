"""`ProcessVector`: the slots of an env runner in processes of their own, so one search serves all.

Legend: N slots, D padded observation dim, A padded action dim.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rllib_ezm.tasks.env_process import RESET, STEP, WAIT, Raised, Reply, Request, Setup
from rllib_ezm.tasks.failure import ENV_FAILURES, EnvironmentFailedError
from rllib_ezm.tasks.multitask import TaskSet
from rllib_ezm.tasks.process_handle import EnvProcess
from rllib_ezm.tasks.watchdog import STEP as STEP_CALL
from rllib_ezm.utils.seeding import derived_seed

logger = logging.getLogger(__name__)


class RemoteSlot:
    """A slot in another process, as far as an env runner touches it.

    Args:
        task_id: Task of the first episode.
    """

    def __init__(self, task_id: int) -> None:
        self.next_task = task_id

    @property
    def unwrapped(self) -> RemoteSlot:
        """Itself."""
        return self


class SlotSettings(NamedTuple):
    """What slots are made of; see `TaskSlot` and `Watchdog`."""

    termination: str
    max_consecutive_failures: int
    timeout_s: float | None


class ProcessVector(VectorEnv[Any, Any, Any]):
    """Steps its slots in processes, at the same time; trajectories are those of `SlotVector`.

    What an environment does to its process stays there. A process that ends in the middle of a call
    is replaced: the episodes of its slots are truncated at their last observation, in a step that
    `ENV_FAILURES` marks as not made (1 for the task whose environment it was, 0 for the others),
    and the next ones get seeds of their own. The processes begin with the first reset.

    Args:
        tasks: The task set.
        slot_tasks: Task of the first episode of each slot [N].
        num_processes: At most N are used, each for consecutive slots.
        settings: What the slots are made of.
    """

    def __init__(
        self,
        tasks: TaskSet,
        slot_tasks: Sequence[int],
        num_processes: int,
        settings: SlotSettings,
    ) -> None:
        self.num_envs = len(slot_tasks)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space = tasks.observation_space
        self.single_action_space = tasks.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.envs = [RemoteSlot(task) for task in slot_tasks]
        self._tasks, self._settings = tasks, settings
        self._masks = tasks.action_mask
        self._playing = np.array(slot_tasks)
        self._over = np.zeros(self.num_envs, np.bool_)
        self._no_actions = np.zeros((self.num_envs, tasks.action_dim), np.float32)
        self._last = np.zeros((self.num_envs, tasks.obs_dim), np.float32)
        self._seeds: list[int | None] = [None] * self.num_envs
        self._base_seeds = list(self._seeds)
        self._num_replaced = 0
        self._deaths: Counter[int | None] = Counter()
        self._folder = Path(tempfile.mkdtemp(prefix="ezm_env_processes_"))
        count = min(num_processes, self.num_envs)
        blocks = [part.tolist() for part in np.array_split(np.arange(self.num_envs), count)]
        self._processes = [
            EnvProcess(
                block,
                Setup(
                    tasks,
                    [slot_tasks[slot] for slot in block],
                    *settings,
                    black_box=str(self._folder / f"{number}"),
                ),
            )
            for number, block in enumerate(blocks)
        ]
        self._end = weakref.finalize(self, _end_all, self._processes, self._folder)

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that run."""
        return [process.pid for process in self._processes if process.pid is not None]

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, Any]:
        """Observations and infos, a list with one for each slot.

        Raises:
            EnvironmentFailedError: See `TaskSlot`; or environments of a task ended their process
                too often in a row.
        """
        if isinstance(seed, int):
            seed = [seed + slot for slot in range(self.num_envs)]
        self._seeds = [None] * self.num_envs if seed is None else list(seed)
        self._base_seeds = list(self._seeds)
        calls = np.full(self.num_envs, RESET)
        observations, _, _, _, infos = self._run(calls, self._no_actions, options)
        return observations, infos

    def step(
        self, actions: Any
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, Any]:
        """Observations, rewards, terminations, truncations and infos, a list.

        A slot whose episode was over is reset instead.

        Raises:
            EnvironmentFailedError: As `reset`.
        """
        return self._run(np.where(self._over, RESET, STEP), np.asarray(actions, np.float32), None)

    def close_extras(self, **kwargs: Any) -> None:
        """End the processes."""
        self._end()

    def _run(
        self, calls: np.ndarray, actions: np.ndarray, options: dict[str, Any] | None
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        for slot in np.flatnonzero(calls == RESET):
            self._playing[slot] = self.envs[slot].next_task
        for process in self._processes:
            process.send(self._request(process, calls, actions, options))
        answers = [self._receive(process, calls, actions, options) for process in self._processes]
        replies = [_checked(answer) for answer in answers]
        self._last, rewards, terminated, truncated = (
            np.concatenate(parts) for parts in zip(*(reply[:4] for reply in replies), strict=True)
        )
        infos = [info for reply in replies for info in reply.infos]
        self._over = terminated | truncated
        for slot in np.flatnonzero(calls == RESET):
            self._seeds[slot] = None
        for slot in np.flatnonzero(self._over):
            if ENV_FAILURES not in infos[slot]:  # the episode ended by itself
                self._deaths.pop(int(self._playing[slot]), None)
                self._deaths.pop(None, None)
        return self._padded(), rewards, terminated, truncated, infos

    def _padded(self) -> dict[str, np.ndarray]:
        """The latest observations, in the form of the observation space."""
        columns = {
            "obs": self._last.copy(),
            "task_id": self._playing.astype(np.int64),
            "action_mask": self._masks[self._playing],
        }
        space: Any = self.single_observation_space
        return {key: columns[key] for key in space.spaces}

    def _request(
        self,
        process: EnvProcess,
        calls: np.ndarray,
        actions: np.ndarray,
        options: dict[str, Any] | None,
    ) -> Request:
        slots = process.slots
        return Request(
            calls[slots].tolist(),
            actions[slots],
            [self._seeds[slot] for slot in slots],
            [self.envs[slot].next_task for slot in slots],
            options,
        )

    def _receive(
        self,
        process: EnvProcess,
        calls: np.ndarray,
        actions: np.ndarray,
        options: dict[str, Any] | None,
    ) -> Reply | Raised:
        """The reply of a process; where it has ended, what becomes of its slots."""
        failures = np.zeros(self.num_envs, np.int64)
        cut_short = np.zeros(self.num_envs, np.bool_)
        while (reply := process.receive()) is None:
            try:
                failures += self._replace(process, calls)
            except EnvironmentFailedError as error:
                return Raised(True, str(error))
            # What began a step ends with its last observation. What was to begin an episode has
            # none yet: it begins one in the new process.
            cut_short[process.slots] |= calls[process.slots] == STEP
            calls = np.where(cut_short, WAIT, calls)
            process.send(self._request(process, calls, actions, options))
        if isinstance(reply, Raised) or not (cut_short.any() or failures.any()):
            return reply
        return self._with_failures(reply, process.slots, cut_short, failures)

    def _with_failures(
        self, reply: Reply, slots: list[int], cut_short: np.ndarray, failures: np.ndarray
    ) -> Reply:
        """The reply of a new process, with the ends of the episodes that were in the last one."""
        ended = cut_short[slots]
        infos = [dict(info) for info in reply.infos]
        for info, slot, over in zip(infos, slots, ended, strict=True):
            count = int(failures[slot])
            if over or count:
                info[ENV_FAILURES] = info.get(ENV_FAILURES, 0) + count
        return reply._replace(
            obs=np.where(ended[:, None], self._last[slots], reply.obs),
            truncated=reply.truncated | ended,
            infos=infos,
        )

    def _replace(self, process: EnvProcess, calls: np.ndarray) -> np.ndarray:
        """Prepare for a new process in place of one that has ended.

        Returns:
            [N], 1 for the slot whose environment ended it.

        Raises:
            EnvironmentFailedError: So many ended in a row.
        """
        death = process.bury()
        self._num_replaced += 1
        for slot in process.slots:
            base = self._base_seeds[slot]
            if base is not None:
                self._seeds[slot] = derived_seed(base, self._num_replaced) % 2**31
        guilty = np.zeros(self.num_envs, np.int64)
        task = None if death is None else death.task_id
        if death is None:
            text = f"a process of environments ended between their calls ({process.exit_code})"
        else:
            text = death.describe(self._tasks.names[death.task_id], self._settings.timeout_s)
            call = STEP if death.call == STEP_CALL else RESET
            own = [slot for slot in process.slots if self._playing[slot] == task]
            for slot in [*(slot for slot in own if calls[slot] == call), *own][:1]:
                guilty[slot] = 1
        self._deaths[task] += 1
        limit = self._settings.max_consecutive_failures
        if self._deaths[task] >= limit:
            raise EnvironmentFailedError(
                f"{text}; processes that it ended in a row: {self._deaths[task]} "
                f"(max_consecutive_env_failures={limit} of .tasks(...)). Fix the environment, or "
                "raise that limit."
            )
        logger.warning(
            "%s. The process of %d environments is replaced, their episodes are truncated; such "
            "ends in a row: %d, training ends at %d.",
            text,
            len(process.slots),
            self._deaths[task],
            limit,
        )
        return guilty


def _checked(answer: Reply | Raised) -> Reply:
    if isinstance(answer, Reply):
        return answer
    raise (EnvironmentFailedError if answer.environment_failed else RuntimeError)(answer.message)


def _end_all(processes: list[EnvProcess], folder: Path) -> None:
    for process in processes:
        process.close()
    for process in processes:
        process.end()
    shutil.rmtree(folder, ignore_errors=True)
