"""What an iteration logs beside RLlib's own metrics; `docs/reference/metrics.md` describes it."""

from __future__ import annotations

import numpy as np
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rllib_ezm.execution.asynchronous import Pipeline
from rllib_ezm.execution.learner_thread import Batch
from rllib_ezm.execution.update_schedule import UpdateSchedule
from rllib_ezm.replay import ReplayBuffer
from rllib_ezm.tasks.statistics import TaskStatistics


def log_tasks(metrics: MetricsLogger, statistics: TaskStatistics) -> None:
    """Counters of each task, its score once it has finished an episode, and the mean score."""
    log = metrics.log_value
    score = statistics.score_mean()
    if score is not None:
        log("normalized_score_mean", score, reduce="item")
    for task, spec in enumerate(statistics.specs):
        key = ("tasks", spec.name)
        log((*key, "env_steps"), int(statistics.env_steps[task]), reduce="item")
        log((*key, "episodes"), int(statistics.episodes[task]), reduce="item")
        log((*key, "physics_errors"), int(statistics.physics_errors[task]), reduce="item")
        log((*key, "env_failures"), int(statistics.env_failures[task]), reduce="item")
        if statistics.returns[task]:
            mean = float(np.mean(statistics.returns[task]))
            log((*key, "episode_return_mean"), mean, reduce="item")
            log((*key, "normalized_score"), spec.normalized_score(mean), reduce="item")
        for name, value in statistics.info_means(task).items():
            log((*key, "info", name), value, reduce="item")


def log_progress(
    metrics: MetricsLogger,
    *,
    schedule: UpdateSchedule,
    env_steps: int,
    replay_buffer: ReplayBuffer,
    elapsed: float,
    seconds: dict[str, float],
    new_env_steps: int,
    new_updates: int,
) -> None:
    """Updates against env steps, the replay buffer's fill, and where the time of an iteration went.

    Args:
        metrics: The algorithm's.
        schedule: Counts the updates.
        env_steps: Env steps so far.
        replay_buffer: Its fill is logged.
        elapsed: Seconds of this training step.
        seconds: Seconds of it by activity.
        new_env_steps: Env steps of this training step.
        new_updates: Updates of this training step.
    """
    log = metrics.log_value
    log("num_updates_lifetime", schedule.num_updates, reduce="item")
    log("replay_ratio", schedule.measured_ratio(env_steps), reduce="item")
    log("replay_transitions", len(replay_buffer), reduce="item")
    log("replay_bytes", replay_buffer.nbytes, reduce="item")
    log("replay_gaps", replay_buffer.num_gaps, reduce="item")
    for name, value in seconds.items():
        log(("time_share", name), value / elapsed, reduce="mean")
    log(("throughput", "env_steps_per_s"), new_env_steps / elapsed, reduce="mean")
    log(("throughput", "updates_per_s"), new_updates / elapsed, reduce="mean")


def log_target_ages(
    metrics: MetricsLogger,
    batch: Batch,
    fresh: np.ndarray,
    num_updates: int,
    searched_at: int,
) -> None:
    """How many updates ago the targets of a batch were searched: median and 95 % quantile.

    Args:
        metrics: The algorithm's.
        batch: As sampled.
        fresh: [B, K+1], which states have been searched since.
        num_updates: Updates made by now.
        searched_at: Updates made before that.
    """
    searched = np.where(fresh, searched_at, batch["searched_at"])
    states = batch["step_mask"][:, : searched.shape[1]] > 0
    middle, high = np.percentile(num_updates - searched[states], (50, 95))
    metrics.log_value(("target_age", "p50"), float(middle), reduce="mean")
    metrics.log_value(("target_age", "p95"), float(high), reduce="mean")


def log_pipeline(metrics: MetricsLogger, pipeline: Pipeline) -> None:
    """Ages in updates of what was used lately, and what the transfer of weights costs."""
    for kind, quantiles in pipeline.staleness.quantiles().items():
        for name, age in quantiles.items():
            metrics.log_value(("staleness", kind, name), age, reduce="item")
    metrics.log_value("weight_bytes_sent", pipeline.bytes_sent, reduce="item")
    metrics.log_value("learner_idle_s", pipeline.idle_seconds, reduce="item")
    for stage, value in pipeline.stage_seconds.items():
        metrics.log_value(("stage_seconds", stage), value, reduce="item")
