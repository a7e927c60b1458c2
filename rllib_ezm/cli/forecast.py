"""What a training run will take on this machine, from a short probe of it: `rllib-ezm plan`."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import ray
import torch
from ray.exceptions import RayTaskError
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune.result import TIME_TOTAL_S, TIMESTEPS_TOTAL, TRAINING_ITERATION

from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.algorithm.ezm import EZM
from rllib_ezm.cli.experiment_file import ExperimentFile
from rllib_ezm.utils.errors import UserError

NUM_UPDATES = "num_updates_lifetime"
ENV_STEP_COUNTERS = (
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    f"env_runners/{NUM_ENV_STEPS_SAMPLED_LIFETIME}",
    TIMESTEPS_TOTAL,
)
REFERENCE_ENV_STEPS = 100_000
"""What is forecast where the end of a run is not known."""

GIB = 2**30
LONGEST = 10
"""A probe that has seen no update gives up after so many times its length."""


@dataclass(frozen=True)
class Rates:
    """What a probe measured.

    Attributes:
        seconds_per_env_step: Acting, simulation and storing, per env step.
        seconds_per_update: Sampling, reanalyze, gradient step and weight transfer, per update.
        env_steps: Env steps measured.
        updates: Updates measured.
        memory: Peak resident memory of driver and workers so far [bytes].
        device_memory: Peak memory allocated on the learner's GPU [bytes]; 0 without one.
        learning_from: Where `seconds_per_update` is from, in place of this probe: a heading.
    """

    seconds_per_env_step: float
    seconds_per_update: float
    env_steps: int
    updates: int
    memory: int
    device_memory: int
    learning_from: str | None = None


@dataclass(frozen=True)
class Forecast:
    """A run of an experiment file at the rates of a probe.

    Attributes:
        rates: The rates.
        env_steps: Env steps of the run.
        updates: Updates of the run.
        collection_hours: Hours of collection.
        update_hours: Hours of updates.
        evaluation_hours: Hours of evaluation, if every episode has its full length.
        memory: Peak memory with a replay buffer that is as full as it gets [bytes].
        replay_on_gpu: The part of the replay buffer on the learner's GPU, from the start [bytes].
        has_end: Whether `stop` says where the run ends; otherwise this is a part of it.
    """

    rates: Rates
    env_steps: float
    updates: float
    collection_hours: float
    update_hours: float
    evaluation_hours: float
    memory: int
    replay_on_gpu: int = 0
    has_end: bool = True

    @property
    def hours(self) -> float:
        """Hours of the whole run."""
        return self.collection_hours + self.update_hours + self.evaluation_hours

    def lines(self) -> Iterator[str]:
        """What to print."""
        rates = self.rates
        memory_now = f"  memory now    {rates.memory / GIB:12.1f} GiB"
        if rates.learning_from is None:
            yield f"measured over {rates.env_steps:,} env steps and {rates.updates:,} updates:"
        else:
            yield f"measured on this machine over {rates.env_steps:,} env steps:"
        yield f"  collection    {1 / rates.seconds_per_env_step:12,.1f} env steps/s"
        if rates.learning_from is not None:
            yield memory_now
            yield rates.learning_from
        yield f"  learning      {1 / rates.seconds_per_update:12,.2f} updates/s"
        if rates.learning_from is None:
            yield memory_now
        if rates.device_memory:
            yield f"  GPU memory    {rates.device_memory / GIB:12.1f} GiB"
        if not self.has_end:
            yield "where the run ends is not known: `stop` has no bound on env steps, updates,"
            yield "iterations or time. For a part of it:"
        what = "the whole file" if self.has_end else "a part"
        yield f"{what}: {self.env_steps:,.0f} env steps, {self.updates:,.0f} updates"
        yield f"  collection    {self.collection_hours:12.2f} h"
        yield f"  learning      {self.update_hours:12.2f} h"
        yield f"  evaluation    {self.evaluation_hours:12.2f} h (episodes of full length)"
        yield f"  together      {self.hours:12.2f} h"
        yield f"  memory        {self.memory / GIB:12.1f} GiB with the replay buffer filled"
        if self.replay_on_gpu:
            yield f"  GPU memory    {self.replay_on_gpu / GIB:12.1f} GiB of the replay buffer"


def probe_as_trial(config: EZMConfig, seconds: float, *, learn: bool = True) -> Rates:
    """`probe` in a process with a Tune trial's CPUs, GPUs and thread count. Ray must be running.

    Raises:
        UserError: As `probe`.
    """
    gpus = 0 if config.num_learners else config.num_gpus_per_learner
    trial = ray.remote(num_cpus=config.num_cpus_for_main_process, num_gpus=gpus)(probe)
    try:
        return cast(Rates, ray.get(trial.remote(config, seconds, learn=learn)))
    except RayTaskError as error:
        raise error.cause from error


def probe(config: EZMConfig, seconds: float, *, learn: bool = True) -> Rates:
    """Train for a while, without evaluation, and measure. Ray must be running.

    Learning starts at once, on the first env steps; networks, batch, search and tasks are those of
    the run.

    Args:
        config: The run's config.
        seconds: How long to measure; longer if no update fits in.
        learn: Whether to make updates; without, `seconds_per_update` is 0.

    Raises:
        UserError: If no update was made within `LONGEST` times as long.
    """
    short = config.copy(copy_frozen=False)
    steps = short.get_task_set().num_tasks * (short.unroll_steps + short.td_steps)
    short.training(
        num_steps_sampled_before_learning_starts=steps if learn else sys.maxsize,
        num_random_steps=0,
    )
    short.evaluation(evaluation_interval=None)
    short.reporting(min_sample_timesteps_per_iteration=0, min_time_s_per_iteration=0)
    algo = cast(EZM, short.build_algo())
    try:
        limit = time.monotonic() + LONGEST * seconds
        if learn:
            _train_until_update(algo, limit)  # the first one also allocates: not measured
        else:
            algo.train()
        before, end = _counters(algo), time.monotonic() + seconds
        while time.monotonic() < end:
            algo.train()
        if learn and _counters(algo)[2] == before[2]:
            _train_until_update(algo, limit)
        collecting, learning, updates, env_steps = (
            after - start for after, start in zip(_counters(algo), before, strict=True)
        )
        return Rates(
            seconds_per_env_step=collecting / env_steps,
            seconds_per_update=learning / updates if learn else 0.0,
            env_steps=int(env_steps),
            updates=int(updates),
            memory=_peak_memory(algo),
            device_memory=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        )
    finally:
        algo.stop()


def forecast(file: ExperimentFile, rates: Rates) -> Forecast:
    """Extend the rates of a probe to the whole run that a file describes.

    Args:
        file: The experiment file; its `stop` says how long the run is. Where it does not (scores,
            functions, no `stop`), the forecast is for `REFERENCE_ENV_STEPS`, and says so.
        rates: What `probe` measured of its config.
    """
    config = cast("EZMConfig", file.config)
    tasks = config.get_task_set()
    wait, ratio = config.num_steps_sampled_before_learning_starts, config.replay_ratio
    per_iteration = iteration_env_steps(config)
    end = min(_bounds(file.stop, rates, wait, ratio, per_iteration), default=None)
    env_steps = float(REFERENCE_ENV_STEPS) if end is None else end
    updates = max(0.0, env_steps - wait) * ratio
    evaluations = 0.0
    if config.evaluation_interval:
        evaluations = env_steps / per_iteration / config.evaluation_interval
    # The length of episodes of a task without a time limit is not known: they are left out.
    episode_steps = sum((s.max_episode_steps or 0) / s.action_repeat for s in tasks.specs)
    played = evaluations * float(config.evaluation_duration) * episode_steps
    on_gpu = config.replay_bytes_on_gpu()
    stored = min(env_steps / (tasks.num_tasks * config.capacity_per_task), 1.0)
    return Forecast(
        rates=rates,
        env_steps=env_steps,
        updates=updates,
        collection_hours=env_steps * rates.seconds_per_env_step / 3600,
        update_hours=updates * rates.seconds_per_update / 3600,
        evaluation_hours=played * rates.seconds_per_env_step / 3600,
        memory=int(rates.memory + stored * (config.replay_bytes() - on_gpu)),
        replay_on_gpu=on_gpu,
        has_end=end is not None,
    )


def iteration_env_steps(config: EZMConfig) -> float:
    """Env steps of a training iteration: whole fragments of all slots."""
    slots = config.get_task_set().num_tasks * int(config.env_config["envs_per_task"])
    fragment = slots * int(config.rollout_fragment_length)
    return fragment * math.ceil(max(config.min_sample_timesteps_per_iteration or 0, 1) / fragment)


def _bounds(
    stop: Any, rates: Rates, wait: int, ratio: float, per_iteration: float
) -> Iterator[float]:
    """Env steps at which each bound of `stop` ends the run; none for bounds of scores."""
    if not isinstance(stop, Mapping):
        return
    for key, bound in stop.items():
        if key in ENV_STEP_COUNTERS:
            yield float(bound)
        elif key == NUM_UPDATES:
            yield wait + bound / ratio
        elif key == TRAINING_ITERATION:
            yield bound * per_iteration
        elif key == TIME_TOTAL_S:
            learning = bound - wait * rates.seconds_per_env_step
            if learning > 0:
                per_step = rates.seconds_per_env_step + ratio * rates.seconds_per_update
                yield wait + learning / per_step
            else:
                yield bound / rates.seconds_per_env_step


def _train_until_update(algo: EZM, limit: float) -> None:
    """Train until one more update is made; `limit` is a monotonic time."""
    updates = algo.num_updates
    while algo.num_updates == updates:
        if time.monotonic() > limit:
            raise UserError(
                "no update within the time of the probe: give more --seconds, or raise replay_ratio"
            )
        algo.train()


def _counters(algo: EZM) -> tuple[float, float, float, float]:
    """Seconds of collection and of learning so far, updates, env steps."""
    spent = dict(algo.seconds)
    collecting = spent.pop("sample")
    return collecting, sum(spent.values()), float(algo.num_updates), float(algo.num_env_steps)


def _peak_memory(algo: EZM) -> int:
    """Peak resident memory of this process and of the remote env runners [bytes]."""

    def peak(_: Any = None) -> int:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    remote = algo.env_runner_group.foreach_env_runner(peak, local_env_runner=False)
    return peak() + sum(remote)
