"""`EnvPool`: the environments that the slots of one vector environment share."""

from __future__ import annotations

from rllib_ezm.tasks.multitask import TaskSet
from rllib_ezm.tasks.padding import PadTask


class EnvPool:
    """Lends an environment of any task; builds one when none of that task is idle.

    With T slots that each kept an environment of every task they ever played there would soon be
    T * T of them, 13 GB for HumanoidBench Hard. Here there are at most as many as slots, and T
    idle ones.

    Args:
        tasks: The task set.
        termination: "respect" or "ignore", see `PadTask`.
        render_mode: Passed to the tasks' environments.
    """

    def __init__(
        self, tasks: TaskSet, termination: str = "respect", render_mode: str | None = None
    ) -> None:
        self.tasks, self.termination, self.render_mode = tasks, termination, render_mode
        self._idle: list[PadTask] = []

    def take(self, task_id: int) -> PadTask:
        """An environment of the task, which needs a reset."""
        for position in reversed(range(len(self._idle))):
            if self._idle[position].task_id == task_id:
                return self._idle.pop(position)
        return self.tasks.make(task_id, self.render_mode, self.termination)

    def release(self, env: PadTask) -> None:
        """Keep an environment for later; closes the one that has been idle longest, if too many."""
        self._idle.append(env)
        if len(self._idle) > self.tasks.num_tasks:
            self._idle.pop(0).close()

    def close(self) -> None:
        """Closes the idle environments."""
        while self._idle:
            self._idle.pop().close()
