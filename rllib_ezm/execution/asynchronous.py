"""Collecting, reanalyzing and learning at once (Figure 2(D)), at the enforced replay ratio."""

from __future__ import annotations

import functools
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
import tree
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.utils.actor_manager import FaultTolerantActorManager

from rllib_ezm.execution.learner_thread import Batch, LearnerThread, Update, Weights
from rllib_ezm.execution.protocols import Collected, RestartableEnvRunner, Trainer
from rllib_ezm.execution.reanalyze_worker import STORED, ReanalyzeWorker
from rllib_ezm.execution.recovery import TARGETS as TARGET_SEEDS
from rllib_ezm.execution.staleness import ACTING, PRIORITIES, TARGETS, Staleness
from rllib_ezm.execution.weight_transfer import from_transfer_dtype, to_transfer_dtype
from rllib_ezm.update.reanalyzer import is_reanalyzed
from rllib_ezm.utils.seeding import derived_seed

COLLECT, REANALYZE = "collect", "reanalyze"
IDLE_SECONDS = 0.002

LEARNERS, ENV_RUNNERS, REANALYZE_WORKERS, DRIVER = STAGES = (
    "learners",
    "env_runners",
    "reanalyze_workers",
    "driver",
)
"""What can be the bottleneck; the driver samples batches and evaluates."""


class Pipeline:
    """Keeps env runners, reanalyze workers and learners busy, each with its next piece of work.

    * An env runner gets its next fragment as soon as the last one is in, unless the learners are
      `max_updates_behind` behind the replay ratio, so collection never runs far ahead.
    * A batch is sampled only for an update that the replay ratio allows, and at most
      `max_queued_batches` are on their way to the learners: so targets and priorities are fresh.
    * The learners wait for an env runner that acts with weights older than `max_weight_age`.

    Nothing computed is thrown away. What a process had under way when it died is done again by
    another one; its env steps were never counted.

    Args:
        algorithm: Stores env steps, samples batches and counts updates, all in its own thread.
    """

    def __init__(self, algorithm: Trainer) -> None:
        self._algorithm = algorithm
        config = algorithm.config
        self._config = config
        self._collecting: dict[int, int] = {}
        self._acting_version: dict[int, int] = {}
        self._num_sampled = self._num_learned = algorithm.num_updates
        self._weights: Weights | None = None
        self._reanalyzing: dict[int, Update] = {}
        self._sampled: deque[Update] = deque()
        self._on_the_way: deque[Update] = deque()
        self._workers = self._start_workers() if config.num_reanalyze_workers else None
        self._thread = LearnerThread(self._make, config.max_queued_batches)
        self._thread.start()
        self.bytes_sent = 0
        self._waits = dict.fromkeys((ENV_RUNNERS, REANALYZE_WORKERS, DRIVER), 0.0)
        self._accounted_until = time.perf_counter()
        self.staleness = Staleness()

    def advance(self) -> None:
        """Go on until as many env steps are in as one fragment of every slot holds."""
        self._account_waiting(DRIVER)
        algorithm = self._algorithm
        env_config = self._config.env_config
        slots = len(env_config["tasks"]) * env_config["envs_per_task"]
        enough = algorithm.num_env_steps + slots * self._config.rollout_fragment_length
        give_up = time.perf_counter() + self._config.sample_timeout_s
        while algorithm.num_env_steps < enough and time.perf_counter() < give_up:
            if not self._poll():
                time.sleep(IDLE_SECONDS)
            if not self._algorithm.env_runner_group.healthy_worker_ids():
                return  # RLlib restores them between two training steps

    def advance_until(self, over: Callable[[], bool]) -> None:
        """Go on until something else is over (an evaluation)."""
        while not over():
            if not self._poll():
                time.sleep(IDLE_SECONDS)

    def drain(self) -> None:
        """Finish what is under way, and begin nothing new."""
        while self._collecting or self._num_sampled > self._algorithm.num_updates:
            if not self._poll(begin=False):
                time.sleep(IDLE_SECONDS)

    def forget_weights(self) -> None:
        """All processes have new ones already (a checkpoint was written or restored)."""
        assert not self._collecting, "call drain() first"
        self._num_sampled = self._num_learned = self._algorithm.num_updates
        self._weights = None
        self._acting_version.clear()

    def close(self) -> None:
        """End the thread and the workers."""
        self._thread.close()
        if self._workers is not None:
            for worker in self._workers.actors().values():
                ray.kill(worker)

    @property
    def idle_seconds(self) -> float:
        """Seconds that the learners had nothing to do."""
        return self._thread.idle_seconds

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds that the learners worked, and that they were idle because of each other stage."""
        return {LEARNERS: self._thread.busy_seconds, **self._waits}

    def _account_waiting(self, cause: str | None = None) -> None:
        """Attribute the time since the last call to a stage, if the learners were idle.

        Args:
            cause: The stage that kept them waiting; None: find out.
        """
        now = time.perf_counter()
        if self._thread.is_idle:
            self._waits[cause or self._cause_of_waiting()] += now - self._accounted_until
        self._accounted_until = now

    def _cause_of_waiting(self) -> str:
        if self._on_the_way:
            ready = self._workers is None or is_reanalyzed(self._on_the_way[0].batch)
            return DRIVER if ready else REANALYZE_WORKERS
        oldest = min(self._collecting.values(), default=math.inf)
        nothing_due = self._num_sampled >= self._algorithm.num_updates_due
        too_old = self._num_sampled >= oldest + self._config.max_weight_age
        return ENV_RUNNERS if nothing_due or too_old else DRIVER

    def _poll(self, *, begin: bool = True) -> bool:
        """Receive what is ready, submit what is due; whether anything was."""
        self._account_waiting()
        busy = self._receive_env_steps()
        busy |= self._receive_updates()
        if self._workers is not None:
            busy |= self._receive_targets(self._workers)
            busy |= self._submit_to_workers(self._workers)
        busy |= self._submit_to_learners()
        if begin:
            self._algorithm.start_learning_if_ready()
            busy |= self._begin_updates()
            busy |= self._begin_collecting()
        return busy

    # Env runners.

    def _begin_collecting(self) -> bool:
        algorithm, config = self._algorithm, self._config
        if algorithm.num_updates_due - algorithm.num_updates > config.max_updates_behind:
            return False
        group = algorithm.env_runner_group
        idle = [i for i in group.healthy_worker_ids() if i not in self._collecting]
        for index in idle:
            version = self._acting_version.get(index, algorithm.num_updates)
            weights = None
            if self._weights is not None and self._weights.version > version:
                weights, version = self._weights.acting, self._weights.version
                self.bytes_sent += self._weights.nbytes
            group.foreach_env_runner_async(
                functools.partial(_collect_with, weights=weights),
                tag=COLLECT,
                remote_worker_ids=[index],
            )
            self._acting_version[index] = self._collecting[index] = version
        return bool(idle)

    def _receive_env_steps(self) -> bool:
        algorithm = self._algorithm
        group = algorithm.env_runner_group
        found: list[tuple[int, Collected]] = group.fetch_ready_async_reqs(
            tags=COLLECT, timeout_seconds=0.0
        )
        for index, collected in found:
            version = self._collecting.pop(index)
            if collected.episodes is not None:
                self.staleness.record(ACTING, algorithm.num_updates - version)
            else:  # restarted by Ray; the algorithm gives it the latest weights
                self._acting_version.pop(index)
        algorithm.store_episodes([collected for _, collected in found])
        healthy = group.healthy_worker_ids()
        for index in [i for i in self._collecting if i not in healthy]:
            del self._collecting[index]
            del self._acting_version[index]
        return bool(found)

    # Learners.

    def _begin_updates(self) -> bool:
        """Sample the batches that are due, for the workers or for the learners."""
        algorithm, config = self._algorithm, self._config
        oldest = min(self._collecting.values(), default=math.inf)
        begun = False
        while (
            self._num_sampled < algorithm.num_updates_due
            and self._num_sampled - algorithm.num_updates < config.max_queued_batches
            and self._num_sampled < oldest + config.max_weight_age
        ):
            self._num_sampled += 1
            update = Update(
                batch=algorithm.sample_batch(),
                env_steps=algorithm.num_env_steps,
                sampled_at=algorithm.num_updates,
            )
            self._on_the_way.append(update)
            if self._workers is not None:
                self._sampled.append(update)
            begun = True
        return begun

    def _submit_to_learners(self) -> bool:
        """Submit to the learners what is ready, in the order of sampling: no batch gets too old."""
        passed = False
        while self._on_the_way and self._thread.has_room():
            if self._workers is not None and not is_reanalyzed(self._on_the_way[0].batch):
                break
            self._thread.submit(self._on_the_way.popleft())
            passed = True
        return passed

    def _receive_updates(self) -> bool:
        made = self._thread.completed()
        for update in made:
            self._algorithm.finish_update(update)
            self.staleness.record(PRIORITIES, update.number - 1 - update.sampled_at)
            if update.target_version is not None:
                self.staleness.record(TARGETS, update.number - 1 - update.target_version)
            self._weights = update.weights or self._weights
        return bool(made)

    def _make(self, update: Update) -> None:
        """In the learners' thread."""
        update.results = self._algorithm.update_learners(update.batch, update.env_steps)
        self._num_learned += 1
        update.number = self._num_learned
        if update.number % self._config.weight_sync_interval == 0:
            update.weights = self._fetch_weights(update.number)

    def _fetch_weights(self, version: int) -> Weights:
        group = self._algorithm.learner_group
        acting = group.get_state(
            components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
        )[COMPONENT_LEARNER]
        target = None
        if self._config.num_reanalyze_workers:
            target = next(iter(group.foreach_learner(_target_weights))).get()
        if self._config.weight_transfer_dtype == "bfloat16":
            acting, target = to_transfer_dtype(acting), to_transfer_dtype(target)
        return Weights(
            version,
            ray.put(acting),
            None if target is None else ray.put(target),
            sum(x.nbytes for x in tree.flatten(acting) if isinstance(x, np.ndarray)),
        )

    # Reanalyze workers.

    def _start_workers(self) -> FaultTolerantActorManager:
        config = self._config
        remote = ray.remote(
            num_cpus=config.num_cpus_per_reanalyze_worker,
            num_gpus=config.num_gpus_per_reanalyze_worker,
            max_restarts=-1,
        )(ReanalyzeWorker)
        seeds = [
            None if config.seed is None else derived_seed(config.seed, TARGET_SEEDS, index)
            for index in range(config.num_reanalyze_workers)
        ]
        workers = [remote.remote(config, seed) for seed in seeds]
        ray.get([worker.ping.remote() for worker in workers])
        return FaultTolerantActorManager(workers, max_remote_requests_in_flight_per_actor=1)

    def _submit_to_workers(self, workers: FaultTolerantActorManager) -> bool:
        if not self._sampled:
            return False
        if self._weights is None:
            self._weights = self._fetch_weights(self._algorithm.num_updates)
        handed = False
        for index in workers.healthy_actor_ids():
            if self._sampled and index not in self._reanalyzing:
                update = self._sampled.popleft()
                update.target_version = self._weights.version
                workers.foreach_actor_async(
                    functools.partial(
                        _reanalyze_with,
                        batch=update.batch,
                        weights=self._weights.target,
                        version=self._weights.version,
                    ),
                    tag=REANALYZE,
                    remote_actor_ids=[index],
                )
                self._reanalyzing[index] = update
                handed = True
        return handed

    def _receive_targets(self, workers: FaultTolerantActorManager) -> bool:
        found = workers.fetch_ready_async_reqs(tags=REANALYZE, timeout_seconds=0.0)
        for result in found:
            update = self._reanalyzing.pop(result.actor_id)
            if result.ok:
                columns = result.get()
                if STORED in columns:
                    assert update.target_version is not None
                    self._algorithm.store_targets(
                        update.batch, columns.pop(STORED), update.target_version
                    )
                update.batch = {**update.batch, **columns}
            else:
                self._sampled.appendleft(update)
        if len(workers.healthy_actor_ids()) < workers.num_actors():
            workers.probe_unhealthy_actors(timeout_seconds=0.0, mark_healthy=True)
        return len(found) > 0


def _collect_with(runner: RestartableEnvRunner, weights: ray.ObjectRef | None) -> Collected:
    if weights is not None and runner.started:
        runner.set_state(from_transfer_dtype(ray.get(weights)))
    return runner.collect()


def _target_weights(learner: Any) -> Any:
    return learner.target_weights() if learner.collective.rank == 0 else None


def _reanalyze_with(
    worker: ReanalyzeWorker, batch: Batch, weights: ray.ObjectRef, version: int
) -> Batch:
    return worker.reanalyze(batch, weights, version)
