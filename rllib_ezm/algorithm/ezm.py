"""EZM: the RLlib Algorithm. Collect, store, update at the enforced replay ratio, sync weights."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EVALUATION_RESULTS,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)
from ray.tune import PlacementGroupFactory
from ray.tune.registry import register_trainable

from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.algorithm.env_runner import (
    TASK_ID,
    Collected,
    count_env_failures,
    ended_by_physics_error,
    info_metrics,
)
from rllib_ezm.algorithm.learner import PRIORITIES, REANALYZE_SECONDS
from rllib_ezm.algorithm.rl_module import SEARCH_ACTION, SEARCH_VALUE
from rllib_ezm.execution.asynchronous import STAGES, Pipeline
from rllib_ezm.execution.checkpointing import ResumableAlgorithm
from rllib_ezm.execution.learner_thread import Batch, Update
from rllib_ezm.execution.replay_actors import ReplayActors
from rllib_ezm.execution.resources import check_fits
from rllib_ezm.replay import EpisodeChunk, MultiTaskReplayBuffer
from rllib_ezm.tasks.protocol import protocol_name
from rllib_ezm.tasks.statistics import TaskStatistics

logger = logging.getLogger(__name__)


class EZM(ResumableAlgorithm):
    """EfficientZero-Multitask (arXiv:2603.01452).

    One `training_step` samples a fragment from every environment slot and runs the updates that
    `replay_ratio` makes due: one after the other, or, with `asynchronous=True`, at the same time
    (`Pipeline`). `ResumableAlgorithm` says what a checkpoint holds and does.
    """

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> EZMConfig:
        return EZMConfig()

    @override(Algorithm)
    def setup(self, config: EZMConfig) -> None:
        if ray.util.get_current_placement_group() is None:  # otherwise Tune has placed it
            self._check_actors_fit(config)
        super().setup(config)
        settings = self.config
        tasks = settings.get_task_set()
        self.task_statistics = TaskStatistics(
            tasks.specs, settings.metrics_num_episodes_for_smoothing
        )
        self.replay_buffer = make_replay_buffer(settings)
        logger.warning("EZM: %s.", settings.describe())
        self.num_updates = 0
        self.evaluation_score_mean = 0.0
        self._learning_start: int | None = None
        self._updates_at_learning_start = 0
        self._waiting_since = 0
        self.begin_run()
        self.seconds = dict.fromkeys(("sample", "replay", "reanalyze", "update", "sync"), 0.0)
        self.pipeline = Pipeline(self) if settings.asynchronous else None
        self._stage_seconds = dict.fromkeys(STAGES, 0.0)

    def _check_actors_fit(self, config: EZMConfig) -> None:
        """Raises if Ray can never start the actors, for which RLlib would wait for ever."""
        actors = self._request(config).bundles[1:]  # the first is this process
        if not actors:
            return
        if not ray.is_initialized():
            ray.init()  # as the first actor would
        check_fits(sum((Counter(actor) for actor in actors), Counter()), actors)

    @property
    def num_updates_due(self) -> int:
        """Updates that `replay_ratio` allows by now; counted from the start of learning."""
        if self._learning_start is None:
            return self.num_updates
        learned_from = self.num_env_steps - self._learning_start
        return self._updates_at_learning_start + int(self.config.replay_ratio * learned_from)

    @override(Algorithm)
    def step(self) -> dict[str, Any]:
        results: dict[str, Any] = super().step()
        # RLlib reduces the training metrics before it evaluates, so a logged value would be stale.
        results["evaluation_score_mean"] = self.evaluation_score_mean
        if self.pipeline is not None:
            results["bottleneck"] = self._bottleneck(self.pipeline)
            for kind, ages in self.pipeline.staleness.take().items():
                # Tune makes a histogram of a list. A kind may be used first during an evaluation.
                results.setdefault("staleness", {}).setdefault(kind, {})["ages"] = ages
        results["protocol"] = protocol_name(self.config.env_config["termination"])
        return results

    @override(Algorithm)
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self.metrics.log_value(
            (EVALUATION_RESULTS, "num_updates_lifetime"), self.num_updates, reduce="item"
        )
        results: dict[str, Any] = super().evaluate(*args, **kwargs)
        scores = results.get(EVALUATION_RESULTS, results)
        if "normalized_score_mean" in scores:  # not when an env runner was lost on the way
            self.evaluation_score_mean = float(scores["normalized_score_mean"])
        return results

    @override(Algorithm)
    def training_step(self) -> None:
        before = dict(self.seconds)
        started = time.perf_counter()
        steps_before, updates_before = self.num_env_steps, self.num_updates
        if self.pipeline is not None:
            self.pipeline.advance()
            self._log_pipeline(self.pipeline)
        else:
            self._advance()
        self._log_metrics(
            elapsed=time.perf_counter() - started,
            seconds={name: self.seconds[name] - before[name] for name in before},
            env_steps=self.num_env_steps - steps_before,
            updates=self.num_updates - updates_before,
        )

    def _advance(self) -> None:
        """A fragment from every slot, then the updates that are due."""
        start = time.perf_counter()
        collected = self.collect()
        self.seconds["sample"] += time.perf_counter() - start
        self.store_episodes(collected)
        self.start_learning_if_ready()
        while self.num_updates < self.num_updates_due:
            update = Update(self.draw_batch(), self.num_env_steps, self.num_updates)
            start = time.perf_counter()
            update.results = self.update_learners(update.batch, update.env_steps)
            update.seconds = time.perf_counter() - start
            self.finish_update(update)
            if self.num_updates % self.config.weight_sync_interval == 0:
                self._sync_weights()

    def start_learning_if_ready(self) -> None:
        """From the env step on at which enough are in the replay buffer."""
        waited = self.num_env_steps - self._waiting_since
        if (
            self._learning_start is None
            and waited >= self.config.num_steps_sampled_before_learning_starts
        ):
            self._learning_start = self.num_env_steps
            self._updates_at_learning_start = self.num_updates

    def store_episodes(self, collected: Sequence[Collected]) -> None:
        """Store and count what env runners have collected."""
        start = time.perf_counter()
        episodes, metrics = self.unpack(collected)
        if metrics:
            self.metrics.aggregate(metrics, key=ENV_RUNNER_RESULTS)
        for episode in episodes:
            chunk = to_chunk(episode)
            self.replay_buffer.add(chunk)
            self.task_statistics.add(
                chunk.task_id,
                chunk.episode_id,
                chunk.rewards,
                done=episode.is_done,
                physics_error=ended_by_physics_error(episode),
                env_failures=count_env_failures(episode),
                info=info_metrics(episode),
            )
        self.seconds["replay"] += time.perf_counter() - start

    def draw_batch(self) -> Batch:
        """A batch for all learners, in the order in which they take the rows."""
        start = time.perf_counter()
        batch = self.replay_buffer.sample(self.config.total_train_batch_size)
        self.seconds["replay"] += time.perf_counter() - start
        return shard_for_learners(batch, self.config.num_learners or 1)

    def update_learners(self, batch: Batch, env_steps: int) -> list[Any]:
        """One update; RLlib's results, one per learner. Touches nothing else (`Pipeline`)."""
        results: list[Any] = self.learner_group.update(
            batch=MultiAgentBatch(
                {DEFAULT_MODULE_ID: SampleBatch(batch)}, env_steps=len(batch["task_ids"])
            ),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: env_steps},
        )
        return results

    def finish_update(self, update: Update) -> None:
        """Count it, log its results, and give its samples their new priorities."""
        batch = update.batch
        priorities, reanalyze = [], 0.0
        for result in update.results:
            module_result = result[DEFAULT_MODULE_ID]
            priorities.extend(module_result.pop(PRIORITIES).peek())
            reanalyze = max(reanalyze, float(module_result.pop(REANALYZE_SECONDS).peek()))
        self.seconds["reanalyze"] += reanalyze
        self.seconds["update"] += update.seconds - reanalyze
        self.metrics.aggregate(update.results, key=LEARNER_RESULTS)
        start = time.perf_counter()
        errors = np.concatenate(priorities)
        finite = np.isfinite(errors)  # of a skipped update, not all are
        self.replay_buffer.update_priorities(
            batch["task_ids"][finite], batch["index"][finite], errors[finite]
        )
        self.seconds["replay"] += time.perf_counter() - start
        self.num_updates += 1

    def _sync_weights(self) -> None:
        start = time.perf_counter()
        # Without a timeout, RLlib drops the transfer to a runner that has not taken the last one.
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group,
            inference_only=True,
            timeout_seconds=None,
        )
        self.seconds["sync"] += time.perf_counter() - start

    def _log_metrics(
        self, *, elapsed: float, seconds: dict[str, float], env_steps: int, updates: int
    ) -> None:
        """Counters, per-task scores and time shares; every key is described in the README."""
        log, statistics = self.metrics.log_value, self.task_statistics
        log("num_updates_lifetime", self.num_updates, reduce="item")
        log("normalized_score_mean", statistics.score_mean(), reduce="item")
        learned_from = self.num_env_steps - (self._learning_start or 0)
        learned = self.num_updates - self._updates_at_learning_start
        log("replay_ratio", learned / max(learned_from, 1), reduce="item")
        log("replay_transitions", len(self.replay_buffer), reduce="item")
        for task, spec in enumerate(statistics.specs):
            log(("tasks", spec.name, "env_steps"), int(statistics.env_steps[task]), reduce="item")
            log(("tasks", spec.name, "episodes"), int(statistics.episodes[task]), reduce="item")
            errors, failures = statistics.physics_errors[task], statistics.env_failures[task]
            log(("tasks", spec.name, "physics_errors"), int(errors), reduce="item")
            log(("tasks", spec.name, "env_failures"), int(failures), reduce="item")
            if statistics.returns[task]:
                mean = float(np.mean(statistics.returns[task]))
                score = spec.normalized_score(mean)
                log(("tasks", spec.name, "episode_return_mean"), mean, reduce="item")
                log(("tasks", spec.name, "normalized_score"), score, reduce="item")
            for name, value in statistics.info_means(task).items():
                log(("tasks", spec.name, "info", name), value, reduce="item")
        log("replay_bytes", self.replay_buffer.nbytes, reduce="item")
        log("replay_gaps", self.replay_buffer.num_gaps, reduce="item")
        for name, value in seconds.items():
            log(("time_share", name), value / elapsed, reduce="mean")
        log(("throughput", "env_steps_per_s"), env_steps / elapsed, reduce="mean")
        log(("throughput", "updates_per_s"), updates / elapsed, reduce="mean")

    def _log_pipeline(self, pipeline: Pipeline) -> None:
        """Ages in updates of what was used lately, and what the transfer of weights costs."""
        for kind, quantiles in pipeline.staleness.quantiles().items():
            for name, age in quantiles.items():
                self.metrics.log_value(("staleness", kind, name), age, reduce="item")
        self.metrics.log_value("weight_bytes_sent", pipeline.bytes_sent, reduce="item")
        self.metrics.log_value("learner_idle_s", pipeline.idle_seconds, reduce="item")
        for stage, value in pipeline.stage_seconds.items():
            self.metrics.log_value(("stage_seconds", stage), value, reduce="item")

    def _bottleneck(self, pipeline: Pipeline) -> str:
        """The stage that the others waited for most of the time since the last call."""
        before, self._stage_seconds = self._stage_seconds, pipeline.stage_seconds
        return max(STAGES, key=lambda stage: self._stage_seconds[stage] - before[stage])

    @override(ResumableAlgorithm)
    def quiesce(self) -> None:
        if self.pipeline is not None:
            self.pipeline.drain()

    @override(ResumableAlgorithm)
    def discard_stale_weights(self) -> None:
        if self.pipeline is not None:
            self.pipeline.forget_weights()

    @override(Algorithm)
    def cleanup(self) -> None:
        if getattr(self, "pipeline", None) is not None:
            self.pipeline.end()
        if isinstance(getattr(self, "replay_buffer", None), ReplayActors):
            self.replay_buffer.end()
        super().cleanup()

    @classmethod
    @override(Algorithm)
    def default_resource_request(cls, config: Any) -> Any:
        request = cls._request(config)
        if ray.is_initialized():  # otherwise Tune would wait for ever
            check_fits(request.required_resources, request.bundles)
        return request

    @classmethod
    def _request(cls, config: Any) -> PlacementGroupFactory:
        """The resources of a trial: this process, then its actors."""
        request = super().default_resource_request(config)
        settings = cls.get_default_config().update_from_dict(config)
        worker = {
            "CPU": settings.num_cpus_per_reanalyze_worker,
            "GPU": settings.num_gpus_per_reanalyze_worker,
        }
        replay = {"CPU": settings.num_cpus_per_replay_actor}
        # At the end: RLlib finds the bundles of its own actors by their position.
        return PlacementGroupFactory(
            [
                *request.bundles,
                *[worker] * settings.num_reanalyze_workers,
                *[replay] * settings.num_replay_actors,
            ],
            strategy=request.strategy,
        )


register_trainable("EZM", EZM)


def make_replay_buffer(config: EZMConfig) -> MultiTaskReplayBuffer | ReplayActors:
    """The empty buffer of a config, in this process or in actors."""
    tasks = config.get_task_set()
    settings: dict[str, Any] = {
        "num_tasks": tasks.num_tasks,
        "capacity_per_task": config.capacity_per_task,
        "obs_dim": tasks.obs_dim,
        "action_dim": tasks.action_dim,
        "unroll_steps": config.unroll_steps,
        "td_steps": config.td_steps,
        "priority_alpha": config.priority_alpha,
        "priority_beta": config.priority_beta,
        "min_weight": config.min_importance_weight,
        "max_bytes": config.max_replay_bytes,
        "seed": config.seed,
    }
    if config.num_replay_actors:
        return ReplayActors(
            config.num_replay_actors, num_cpus=config.num_cpus_per_replay_actor, **settings
        )
    return MultiTaskReplayBuffer(independent=config.independent_replay, **settings)


def shard_for_learners(batch: dict[str, Any], num_learners: int) -> dict[str, Any]:
    """Reorders the rows [B, ...] so that each learner's consecutive B / num_learners are balanced.

    A batch comes in task order, and RLlib splits it into consecutive parts. Taking every
    `num_learners`-th row gives each learner an equal share of each task, plus or minus one row.
    """
    if num_learners == 1:
        return batch
    rows = len(batch["task_ids"])
    order = np.concatenate([np.arange(first, rows, num_learners) for first in range(num_learners)])
    return {name: column[order] for name, column in batch.items()}


def to_chunk(episode: SingleAgentEpisode) -> EpisodeChunk:
    """A replay chunk of an RLlib episode chunk (numpy'ed, executed actions)."""
    observations = episode.get_observations()["obs"]
    return EpisodeChunk(
        task_id=episode.custom_data[TASK_ID],
        episode_id=episode.id_,
        start=episode.t_started,
        observations=observations,
        actions=episode.get_actions(),
        rewards=episode.get_rewards(),
        terminated=episode.is_terminated,
        truncated=episode.is_truncated,
        search_values=episode.get_extra_model_outputs(SEARCH_VALUE),
        search_actions=episode.get_extra_model_outputs(SEARCH_ACTION),
    )
