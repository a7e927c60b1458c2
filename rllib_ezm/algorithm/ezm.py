"""EZM: the RLlib Algorithm. Collect, store, update at the enforced replay ratio, sync weights."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.env_runner_group import EnvRunnerGroup
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

from rllib_ezm.algorithm import phases
from rllib_ezm.algorithm.batches import shard_for_learners, to_chunk
from rllib_ezm.algorithm.checkpoint_summary import write_summary
from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.algorithm.env_runner import (
    TASK_ID,
    PlayProgress,
    count_env_failures,
    ended_by_env_failure,
    ended_by_physics_error,
    info_metrics,
)
from rllib_ezm.algorithm.evaluation import (
    Answer,
    evaluation_config_of,
    play_and_wait,
    play_beside,
    protocol_of,
)
from rllib_ezm.algorithm.learner import PRIORITIES, REANALYZE_SECONDS, STORED_TARGETS
from rllib_ezm.algorithm.phases import PhaseReporter
from rllib_ezm.algorithm.policy_description import describe_policy
from rllib_ezm.algorithm.support_check import SupportCheck
from rllib_ezm.algorithm.training_metrics import (
    log_pipeline,
    log_progress,
    log_target_ages,
    log_tasks,
)
from rllib_ezm.algorithm.warm_start import plan_warm_start
from rllib_ezm.execution.asynchronous import STAGES, Pipeline
from rllib_ezm.execution.checkpointing import ResumableAlgorithm
from rllib_ezm.execution.learner_thread import Batch, Update
from rllib_ezm.execution.protocols import Collected
from rllib_ezm.execution.resources import check_fits, check_local_gpu

logger = logging.getLogger(__name__)


class EZM(ResumableAlgorithm):
    """EfficientZero-Multitask (arXiv:2603.01452).

    One `training_step` samples a fragment from every environment slot and runs the updates that
    `replay_ratio` makes due: one after the other, or, with `asynchronous=True`, at the same time
    (`Pipeline`). `ResumableAlgorithm` says what a checkpoint holds and does.
    """

    pipeline: Pipeline | None = None

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> EZMConfig:
        return EZMConfig()

    @override(ResumableAlgorithm)
    def setup(self, config: EZMConfig) -> None:
        self.phases = PhaseReporter(self.trial_folder)
        self.phases.report(phases.BUILDING)
        if ray.util.get_current_placement_group() is None:  # otherwise Tune has placed it
            self._check_actors_fit(config)
        check_local_gpu(config.num_learners, config.num_gpus_per_learner)
        super().setup(config)
        logger.warning("EZM: %s.", self.config.describe())
        self._support_check = SupportCheck(
            self.config.get_task_set().names,
            reward_support=self.config.reward_support,
            value_support=self.config.value_support,
            discount=self.config.gamma,
        )
        self.seconds = dict.fromkeys(("sample", "replay", "reanalyze", "update", "sync"), 0.0)
        self._stage_seconds = dict.fromkeys(STAGES, 0.0)
        if self.config.asynchronous:
            self.pipeline = Pipeline(self)
        self.begin_unless_restored()

    @override(ResumableAlgorithm)
    def warm_start(self) -> bool:
        start = plan_warm_start(self.config)
        if start is None:
            return False
        state = start.module_state()
        for answer in self.learner_group.foreach_learner(lambda learner: learner.start_from(state)):
            answer.get()
        if start.keeps_replay:
            self.replay_buffer.set_state(start.replay_state(self.replay_buffer.get_state()))
        logger.warning("EZM: warm start %s.", start)
        return True

    @override(Algorithm)
    def training_step(self) -> None:
        self.check_env_runners()
        before = dict(self.seconds)
        started = time.perf_counter()
        steps_before, updates_before = self.num_env_steps, self.num_updates
        self._report_phase()
        if self.pipeline is None:
            self._collect_and_update()
        else:
            self.pipeline.advance()
            log_pipeline(self.metrics, self.pipeline)
        log_tasks(self.metrics, self.task_statistics)
        log_progress(
            self.metrics,
            schedule=self.schedule,
            env_steps=self.num_env_steps,
            replay_buffer=self.replay_buffer,
            elapsed=time.perf_counter() - started,
            seconds={name: self.seconds[name] - before[name] for name in before},
            new_env_steps=self.num_env_steps - steps_before,
            new_updates=self.num_updates - updates_before,
        )
        self.end_iteration_if_requested()

    def _collect_and_update(self) -> None:
        """A fragment from every slot, then the updates that are due."""
        start = time.perf_counter()
        collected = self.collect()
        self.seconds["sample"] += time.perf_counter() - start
        self.store_episodes(collected)
        self.start_learning_if_ready()
        while self.num_updates < self.num_updates_due:
            self._report_phase()
            update = Update(self.sample_batch(), self.num_env_steps, self.num_updates)
            start = time.perf_counter()
            update.results = self.update_learners(update.batch, update.env_steps)
            update.seconds = time.perf_counter() - start
            self.finish_update(update)
            if self.num_updates % self.config.weight_sync_interval == 0:
                self._sync_weights()

    def _report_phase(self) -> None:
        """Between two results, say what goes on."""
        if self.num_updates:
            phase = phases.TRAINING
        elif self.num_updates_due == 0:
            phase = phases.WARM_UP
        else:
            compiles = self.config.compile != "off"
            phase = phases.COMPILING if compiles else phases.FIRST_UPDATE
        self.phases.report(phase, env_steps=self.num_env_steps, updates=self.num_updates)

    def _report_evaluation(self, progress: PlayProgress) -> None:
        self.phases.report(
            phases.EVALUATING,
            detail=str(progress),
            env_steps=self.num_env_steps,
            updates=self.num_updates,
        )

    def start_learning_if_ready(self) -> None:
        """From the env step on at which enough are in the replay buffer."""
        self.schedule.start_if_ready(self.num_env_steps)

    def store_episodes(self, collected: Sequence[Collected]) -> None:
        """Store and count what env runners have collected."""
        start = time.perf_counter()
        episodes, metrics = self.unpack(collected)
        if metrics:
            self.metrics.aggregate(metrics, key=ENV_RUNNER_RESULTS)
        for episode in episodes:
            # An environment that failed did not make the last step: it is not learned from.
            made = len(episode) - ended_by_env_failure(episode)
            if made:
                self.replay_buffer.add(to_chunk(episode, made, searched_at=self.num_updates))
            task_id, rewards = episode.custom_data[TASK_ID], episode.get_rewards()
            failures = count_env_failures(episode)
            if episode.is_done and not failures:
                self.consecutive_deaths.pop(task_id, None)
            self._support_check.add(task_id, episode.id_, rewards, done=episode.is_done)
            self.task_statistics.add(
                task_id,
                episode.id_,
                rewards,
                done=episode.is_done,
                physics_error=ended_by_physics_error(episode),
                env_failures=failures,
                info=info_metrics(episode),
            )
        self.seconds["replay"] += time.perf_counter() - start

    def sample_batch(self) -> Batch:
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
        priorities, stored, reanalyze = [], [], 0.0
        for result in update.results:
            module_result = result[DEFAULT_MODULE_ID]
            priorities.extend(module_result.pop(PRIORITIES).peek())
            if STORED_TARGETS in module_result:
                found = module_result.pop(STORED_TARGETS).peek()
                if isinstance(found, list):  # NaN of a series that a restored learner gives up
                    stored.extend(found)
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
        if stored:
            self.store_targets(batch, np.concatenate(stored), self.num_updates)
        self.seconds["replay"] += time.perf_counter() - start
        self.schedule.num_updates += 1

    def store_targets(self, batch: Batch, targets: np.ndarray, searched_at: int) -> None:
        """Write back what was searched anew in a batch, and log how old the targets in use are.

        Args:
            batch: As sampled.
            targets: See `stored_targets`.
            searched_at: Updates made before the search.
        """
        rows, columns = np.nonzero(targets[..., 0])
        found = targets[rows, columns, 1:]
        finite = np.isfinite(found).all(axis=1)
        rows, columns = rows[finite], columns[finite]
        index = batch["state_index"][rows, columns]
        self.replay_buffer.update_targets(
            batch["task_ids"][rows], index, found[finite], searched_at
        )
        log_target_ages(self.metrics, batch, targets[..., 0] > 0, self.num_updates, searched_at)

    def _sync_weights(self) -> None:
        start = time.perf_counter()
        # Without a timeout, RLlib drops the transfer to a runner that has not taken the last one.
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group,
            inference_only=True,
            timeout_seconds=None,
        )
        self.seconds["sync"] += time.perf_counter() - start

    @override(ResumableAlgorithm)
    def step(self) -> dict[str, Any]:
        results: dict[str, Any] = super().step()
        # RLlib reduces the training metrics before it evaluates, so a logged value would be stale.
        if self.evaluation_score_mean is not None:
            results["evaluation_score_mean"] = self.evaluation_score_mean
        if self.pipeline is not None:
            results["bottleneck"] = self._bottleneck(self.pipeline)
            for kind, ages in self.pipeline.staleness.pop_ages().items():
                # Tune makes a histogram of a list. A kind may be used first during an evaluation.
                results.setdefault("staleness", {}).setdefault(kind, {})["ages"] = ages
        results["protocol"] = protocol_of(self.config.env_config)
        if EVALUATION_RESULTS in results:
            results[EVALUATION_RESULTS]["protocol"] = self._evaluation_protocol
        return results

    def _bottleneck(self, pipeline: Pipeline) -> str:
        """The stage that the others waited for most of the time since the last call."""
        before, self._stage_seconds = self._stage_seconds, pipeline.stage_seconds
        return max(STAGES, key=lambda stage: self._stage_seconds[stage] - before[stage])

    @override(ResumableAlgorithm)
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if self.eval_env_runner_group is None:  # without an `evaluation_interval`
            self.create_evaluation_runners()
        self.metrics.log_value(
            (EVALUATION_RESULTS, "num_updates_lifetime"), self.num_updates, reduce="item"
        )
        self.phases.report(phases.EVALUATING)
        results: dict[str, Any] = super().evaluate(*args, **kwargs)
        scores = results.get(EVALUATION_RESULTS, results)
        if "normalized_score_mean" in scores:  # not when an env runner was lost on the way
            self.evaluation_score_mean = float(scores["normalized_score_mean"])
            scores["protocol"] = self._evaluation_protocol
        return results

    @property
    def _evaluation_protocol(self) -> str:
        """The protocol that evaluations play by, which need not be that of training."""
        return protocol_of(evaluation_config_of(self).env_config)

    def play_episodes(self, env_runner_group: EnvRunnerGroup) -> list[Answer]:
        """An evaluation's episodes; asynchronous training goes on beside remote env runners."""
        if self.pipeline is None or env_runner_group.num_remote_env_runners() == 0:
            return play_and_wait(env_runner_group, self._report_evaluation)
        return play_beside(env_runner_group, self.pipeline.advance_until)

    @override(ResumableAlgorithm)
    def write_summary(self, folder: Path, state: dict[str, Any]) -> None:
        write_summary(folder, self.config, state)
        describe_policy(self.config, self.num_updates).write(folder)

    @override(ResumableAlgorithm)
    def quiesce(self) -> None:
        if self.pipeline is not None:
            self.pipeline.drain()

    @override(ResumableAlgorithm)
    def discard_stale_weights(self) -> None:
        if self.pipeline is not None:
            self.pipeline.forget_weights()

    @override(ResumableAlgorithm)
    def cleanup(self) -> None:
        if self.pipeline is not None:
            self.pipeline.close()
        super().cleanup()

    def _check_actors_fit(self, config: EZMConfig) -> None:
        """Raises if Ray can never start the actors, for which RLlib would wait for ever."""
        actors = self._request(config).bundles[1:]  # the first is this process
        if not actors:
            return
        if not ray.is_initialized():
            ray.init()  # as the first actor would
        check_fits(sum((Counter(actor) for actor in actors), Counter()), actors)

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
