"""Env runner over several tasks: one vector-environment slot per (task, copy), balanced."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.annotations import override
from ray.tune.registry import register_env

from rllib_ezm.execution.protocols import Collected
from rllib_ezm.tasks.failure import (
    ENV_FAILURES,
    MAX_CONSECUTIVE_FAILURES,
    EnvironmentFailedError,
)
from rllib_ezm.tasks.multitask import TaskSet, task_set
from rllib_ezm.tasks.padding import INFO_METRIC, PHYSICS_ERROR
from rllib_ezm.tasks.pool import EnvPool
from rllib_ezm.tasks.process_vector import ProcessVector, SlotSettings
from rllib_ezm.tasks.slot import TaskSlot
from rllib_ezm.tasks.watchdog import (
    ENV_STEP_TIMEOUT_S,
    BlackBox,
    Death,
    Watchdog,
    WatchedVectorEnv,
)
from rllib_ezm.utils.ray_internals import RLLIB_METRICS, OpenEnvRunner, actor_file
from rllib_ezm.utils.seeding import derived_seed, seed_generators

ENV_NAME = "ezm_multitask"
"""Name of the multi-task environment in RLlib's registry."""

TASK_ID = "task_id"
"""Key of an episode's `custom_data` that holds its task id."""

EPISODE_INDEX = "episode_index"
"""Key of an episode's `custom_data`: how many episodes its slot played before."""

PLAY_CHUNK = 50
"""Decisions per slot between two looks at which evaluation episodes are over."""


class PlayedEpisode(NamedTuple):
    """A full episode: task id, undiscounted return, length in decisions, what went wrong, metrics.

    The metrics are the task's `info_metrics`, as far as the environment reported them.
    """

    task_id: int
    episode_return: float
    length: int
    physics_error: bool = False
    env_failures: int = 0
    info: Mapping[str, float] = {}


class Played(NamedTuple):
    """What one env runner played in an evaluation.

    Attributes:
        episodes: One of each slot.
        metrics: What callbacks logged, as RLlib's `MetricsLogger.reduce` gives it.
    """

    episodes: list[PlayedEpisode]
    metrics: dict[str, Any]


class EvaluationTimeoutError(RuntimeError):
    """An evaluation's episodes took too long; names the tasks that were not over."""


class PlayProgress(NamedTuple):
    """How far the episodes of an evaluation are.

    `finished` and `episodes` are numbers of each task by name, `decisions` that of each episode.
    """

    finished: Mapping[str, int]
    episodes: Mapping[str, int]
    decisions: int

    def __str__(self) -> str:
        done, of = sum(self.finished.values()), sum(self.episodes.values())
        return f"{done} of {of} episodes, decision {self.decisions}"


class MultiTaskEnvRunner(OpenEnvRunner):
    """Collects every task of `env_config["tasks"]` in equal shares of env steps.

    A slot whose task is ahead of the average turns to the one with the fewest env steps so far on
    this runner, so shares differ by about an episode per slot at most, whatever the episodes'
    lengths and the number of slots.
    Works unchanged under RLlib's other algorithms.

    `env_config`: `tasks` (see `rllib_ezm.tasks.task_set`), `termination` ("respect"),
    `max_consecutive_env_failures` (10, see `TaskSlot`), `env_step_timeout_s` (60, see `Watchdog`),
    `num_env_processes` (0, see `ProcessVector`) and `envs_per_task` (1). The T * envs_per_task
    slots are distributed over the env runners. An env runner that gets tasks by name reads their
    sizes itself; `EZMConfig` and `on_tasks` do so once for all.
    """

    _playing: bool = False

    started: bool = False
    """Whether the algorithm knows this process: not so after a restart by Ray, see `collect`."""

    @override(OpenEnvRunner)
    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        file = actor_file("ezm_env_runner") if kwargs.get("worker_index") else None
        self._black_box = BlackBox(file) if file else None
        super().__init__(config=config, **kwargs)
        if self.seed is not None and self.worker_index:
            # RLlib's are consecutive, and the seeds of a runner's slots follow on from its own: the
            # second slot of one runner would play the episodes of the first slot of the next.
            self.seed = derived_seed(self.seed, self.worker_index) % 2**31

    @override(OpenEnvRunner)
    def make_env(self) -> None:
        if self.env is not None:
            self.env.close()
        options = self.config.env_config
        self.tasks: TaskSet = task_set(options["tasks"])
        copies = options.get("envs_per_task", 1)
        if self.config.in_evaluation and self.config.evaluation_duration_unit == "episodes":
            copies = self.config.evaluation_duration
        shares = np.array_split(
            np.arange(self.tasks.num_tasks * copies) % self.tasks.num_tasks,
            max(self.num_workers or 1, 1),
        )
        mine = shares[max((self.worker_index or 1) - 1, 0)].tolist()
        # RLlib needs an environment on every runner, also on one that is left without a share.
        slots = mine or [((self.worker_index or 1) - 1) % self.tasks.num_tasks]
        self._share: list[int] = mine
        self.task_steps = np.zeros(self.tasks.num_tasks, dtype=np.int64)
        self._slots = slots
        self.slot_tasks: list[int | None] = [None] * len(slots)
        self._first_tasks: list[int | None] = list(slots)
        self._episode_index = [0] * len(slots)
        self.env = self._make_vector(slots)
        self.num_envs = len(slots)
        self.reset_before_sampling()
        self.report_environment()

    def _make_vector(self, slots: list[int]) -> Any:
        """The vector environment of these tasks, in this process or in some of its own."""
        options = self.config.env_config
        settings = SlotSettings(
            options.get("termination", "respect"),
            options.get("max_consecutive_env_failures", MAX_CONSECUTIVE_FAILURES),
            options.get("env_step_timeout_s", ENV_STEP_TIMEOUT_S),
        )
        num_processes = options.get("num_env_processes", 0)
        if num_processes:
            return ProcessVector(self.tasks, slots, num_processes, settings)
        watchdog = Watchdog(settings.timeout_s, self._black_box)
        make_slot_of = functools.partial(
            TaskSlot,
            self.tasks,
            pool=EnvPool(self.tasks, settings.termination),
            max_consecutive_failures=settings.max_consecutive_failures,
            watchdog=watchdog,
        )
        return WatchedVectorEnv(
            watchdog,
            [functools.partial(make_slot_of, task_id=task) for task in slots],
            autoreset_mode=AutoresetMode.NEXT_STEP,
        )

    @override(OpenEnvRunner)
    def sample(self, **kwargs: Any) -> list[SingleAgentEpisode]:
        """RLlib's `sample`; of the infos, which are for callbacks, only our own keys leave it.

        Others may be large, or belong to this process.
        """
        return [with_own_infos(episode) for episode in super().sample(**kwargs)]

    @override(OpenEnvRunner)
    def is_counted(self, episode: SingleAgentEpisode) -> bool:
        """Of an evaluation, the first episode of each slot; in training, all."""
        return not self._playing or episode.custom_data[EPISODE_INDEX] == 0

    @override(OpenEnvRunner)
    def before_episode(self, env_index: int, ongoing: list[SingleAgentEpisode | None]) -> int:
        return self._schedule(env_index, ongoing)

    @override(OpenEnvRunner)
    def after_episode_start(self, env_index: int, episode: SingleAgentEpisode, given: Any) -> None:
        task: int = given
        episode.custom_data[TASK_ID] = task
        episode.custom_data[EPISODE_INDEX] = self._episode_index[env_index]
        self._episode_index[env_index] += 1
        self.env.unwrapped.envs[env_index].next_task = task

    def _schedule(self, env_index: int, ongoing: list[SingleAgentEpisode | None]) -> int:
        """Task of the slot's next episode: its last one again, unless that is ahead of the average.

        Then it is the one with the fewest env steps so far; ties go to the task with the fewest
        slots, then to the slot's own first task, then to the lowest id. Staying saves building
        environments: one of HumanoidBench's takes as long as a beginner's episode in it. Slots of
        an evaluation always stay: what they play after their one episode does not count.
        """
        last, finished = self.slot_tasks[env_index], ongoing[env_index]
        if last is not None and finished is not None:
            self.task_steps[last] += finished.t
        self.slot_tasks[env_index] = None
        first = self._first_tasks[env_index]
        self._first_tasks[env_index] = None
        if first is None:
            steps, slots = self.task_steps.copy(), np.zeros_like(self.task_steps)
            for task, episode in zip(self.slot_tasks, ongoing, strict=True):
                if task is not None and episode is not None:
                    steps[task] += episode.t
                    slots[task] += 1
            stays = self.config.in_evaluation or (last is not None and steps[last] <= steps.mean())
            if last is not None and stays:
                first = last
            else:
                preferred = np.arange(self.tasks.num_tasks) != last
                first = int(np.lexsort((preferred, slots, steps))[0])
        self.slot_tasks[env_index] = first
        return first

    @override(OpenEnvRunner)
    def count_steps(self, num_steps: int) -> None:
        """Also counts env steps between RLlib's synchronizations, once per training iteration.

        Else an iteration of many `sample()` calls would act at random far beyond
        `num_random_steps`.
        """
        self.num_env_steps_sampled_lifetime += num_steps * (self.config.num_env_runners or 1)

    @override(OpenEnvRunner)
    def translate_error(self, error: RuntimeError) -> BaseException:
        """Keeps the message of a failed environment, which RLlib hides in a bare RuntimeError."""
        return error.__cause__ if isinstance(error.__cause__, EnvironmentFailedError) else error

    def collect(self) -> Collected:
        """`sample()` and `get_metrics()` for an algorithm that has started this runner.

        Ray may restart the process of a runner between two calls without anyone noticing. The new
        one has random weights, has forgotten all counters and would play the first episodes again,
        so it samples nothing until `reset_and_reseed`.

        A failed environment is returned and not raised: RLlib would restart the runner again and
        again, and the message would be lost.
        """
        index = self.worker_index or 0
        if not self.started:
            return Collected(index)
        try:
            return Collected(index, self.sample(), self.get_metrics())
        except EnvironmentFailedError as error:
            return Collected(index, failure=error)

    def reset_and_reseed(self, seed: int, env_steps: np.ndarray) -> None:
        """Begin new episodes with new seeds, as a runner does that was created at this moment.

        Every slot starts with its own first task. The next weights are taken although they may be
        older than ours: after going back to a checkpoint they are.

        Args:
            seed: Of this process's random generators and of the episodes. Evaluation keeps the
                configured seed for its episodes, so that all evaluations start in the same states.
            env_steps: Env steps of each task so far on all runners [T], for the balance of the
                next ones.
        """
        self.started = True
        self.accept_older_weights()
        self.metrics.reset()
        seed_generators(seed)
        if self.env is None:
            return
        if self.seed is None or not self.config.in_evaluation:
            self.seed = seed % 2**31
        runners = self.config.num_env_runners or 1
        self.num_env_steps_sampled_lifetime = int(env_steps.sum())
        self.task_steps[:] = env_steps // runners
        self.slot_tasks = [None] * self.num_envs
        self._first_tasks = list(self._slots)
        self._episode_index = [0] * self.num_envs
        self.forget_ongoing_episodes()
        self.reset_before_sampling()

    def take_death(self) -> Death | None:
        """What the process died of that this one replaces, once, if that was an environment."""
        if self._black_box is None:
            return None
        death, self._black_box.previous = self._black_box.previous, None
        return death

    def play_episodes(
        self,
        *,
        explore: bool = False,
        timeout_s: float | None = None,
        on_progress: Callable[[PlayProgress], None] | None = None,
    ) -> list[PlayedEpisode]:
        """Plays exactly one full episode in every slot of this runner's share, from fresh resets.

        A slot whose episode is over goes on acting until all are; those steps do not count.

        Args:
            explore: Whether to act with exploration.
            timeout_s: Seconds that this may take; None: any time.
            on_progress: Called every `PLAY_CHUNK` decisions.

        Raises:
            EvaluationTimeoutError: It took longer.
            EnvironmentFailedError: A task's environments failed too often in a row.
        """
        if not self._share:
            return []
        self._first_tasks = list(self._share)
        self._episode_index = [0] * self.num_envs
        self._playing = True
        try:
            return self._play_until_all_are_over(explore, timeout_s, on_progress)
        finally:
            self._playing = False
            self.reset_before_sampling()

    def _play_until_all_are_over(
        self,
        explore: bool,
        timeout_s: float | None,
        on_progress: Callable[[PlayProgress], None] | None,
    ) -> list[PlayedEpisode]:
        started = time.monotonic()
        partial: dict[str, PlayedEpisode] = {}
        finished: list[PlayedEpisode] = []
        force_reset, decisions = True, 0
        while len(finished) < self.num_envs:
            chunks = self.sample(
                num_timesteps=PLAY_CHUNK * self.num_envs, explore=explore, force_reset=force_reset
            )
            force_reset = False
            for chunk in chunks:
                task = chunk.custom_data[TASK_ID]
                before = partial.pop(chunk.id_, PlayedEpisode(task, 0.0, 0))
                played = PlayedEpisode(
                    task,
                    before.episode_return + chunk.get_return(),
                    before.length + len(chunk),
                    ended_by_physics_error(chunk),
                    before.env_failures
                    + max(count_env_failures(chunk), ended_by_env_failure(chunk)),
                    info_metrics(chunk),
                )
                if chunk.is_done:
                    finished.append(played)
                else:
                    partial[chunk.id_] = played
            decisions += PLAY_CHUNK
            if on_progress is not None:
                on_progress(self._play_progress(finished, decisions))
            if timeout_s is not None and time.monotonic() - started > timeout_s:
                self._give_up_on(partial.values(), timeout_s)
        return finished

    def _play_progress(self, finished: list[PlayedEpisode], decisions: int) -> PlayProgress:
        names = self.tasks.names
        return PlayProgress(
            finished=_by_name(names, (episode.task_id for episode in finished)),
            episodes=_by_name(names, self._share),
            decisions=decisions,
        )

    def _give_up_on(self, unfinished: Iterable[PlayedEpisode], timeout_s: float) -> None:
        """Raises if there are any of these episodes."""
        waiting = sorted(
            f"{self.tasks.names[e.task_id]} ({e.length} decisions)" for e in unfinished
        )
        if not waiting:
            return
        self.get_metrics()
        raise EvaluationTimeoutError(
            f"The evaluation took longer than evaluation_sample_timeout_s={timeout_s} of "
            f".evaluation(...) and does not count; it waited for {', '.join(waiting)}."
        )

    def play(
        self,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[PlayProgress], None] | None = None,
    ) -> Played:
        """`play_episodes`, with what callbacks logged meanwhile; RLlib's own metrics do not count.

        They are of all steps, also of those after a slot's episode.
        """
        episodes = self.play_episodes(timeout_s=timeout_s, on_progress=on_progress)
        metrics = self.get_metrics()
        return Played(
            episodes, {key: value for key, value in metrics.items() if key not in RLLIB_METRICS}
        )


def is_own_info(key: object) -> bool:
    """Whether the algorithm reads a key of an episode's infos; the others are for callbacks."""
    return key in (PHYSICS_ERROR, ENV_FAILURES) or str(key).startswith(INFO_METRIC)


def with_own_infos(episode: SingleAgentEpisode) -> SingleAgentEpisode:
    """The episode with only those keys of its infos that we read; shares all other data."""
    infos = episode.infos
    if not any(infos.data):
        return episode
    slim = copy.copy(episode)
    slim.infos = copy.copy(infos)
    slim.infos.data = [
        {key: value for key, value in info.items() if is_own_info(key)} for info in infos.data
    ]
    return slim


def _by_name(names: Sequence[str], task_ids: Iterable[int]) -> dict[str, int]:
    counts = dict.fromkeys(names, 0)
    for task_id in task_ids:
        counts[names[task_id]] += 1
    return counts


def ended_by_physics_error(episode: SingleAgentEpisode) -> bool:
    """Whether the last step so far is one whose simulation broke down."""
    return bool(episode.get_infos(-1).get(PHYSICS_ERROR, False))


def count_env_failures(episode: SingleAgentEpisode) -> int:
    """How often environments raised in this chunk: before its first state and at its end."""
    count = int(episode.get_infos(-1).get(ENV_FAILURES, 0))
    if episode.t_started == 0:
        count += int(episode.get_infos(0).get(ENV_FAILURES, 0))
    return count


def ended_by_env_failure(episode: SingleAgentEpisode) -> bool:
    """Whether the last step so far was not made: the environment failed, or its process ended."""
    return episode.is_done and ENV_FAILURES in episode.get_infos(-1)


def info_metrics(episode: SingleAgentEpisode) -> dict[str, float]:
    """The `info_metrics` of an episode at its end, as far as they were reported; empty before."""
    return {
        key.removeprefix(INFO_METRIC): float(value)
        for key, value in episode.get_infos(-1).items()
        if key.startswith(INFO_METRIC)
    }


def make_slot(context: Any) -> TaskSlot:
    """RLlib env creator: one slot that plays the task of its worker (for stock env runners)."""
    tasks = task_set(context["tasks"])
    worker = getattr(context, "worker_index", 0)
    return TaskSlot(tasks, worker % tasks.num_tasks, context.get("termination", "respect"))


register_env(ENV_NAME, make_slot)
