"""RLlib's callbacks: every hook is called, with what RLlib promises, as often as it should be."""

from __future__ import annotations

import functools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.scripted_env import ScriptedEnv
from helpers.tiny import tiny_config
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.env_context import EnvContext

from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.algorithm.env_runner import (
    EPISODE_INDEX,
    TASK_ID,
    MultiTaskEnvRunner,
    PlayedEpisode,
)
from rllib_ezm.algorithm.ezm import EZM
from rllib_ezm.tasks.multitask import TaskSet
from rllib_ezm.tasks.spec import TaskSpec
from rllib_ezm.tasks.vector import SlotVector

SHORT, LONG = 3, 60
"""Lengths of the two tasks' episodes, both sides of a chunk of an evaluation [decisions]."""

ASKED = 2
"""Episodes of each task in an evaluation."""


class CostEnv(ScriptedEnv):
    """Step t costs t; an info that cannot leave its process lies beside it."""

    def step(self, action: np.ndarray) -> Any:
        *result, _ = super().step(action)
        return *result, {"cost": self.t, "handle": (lambda: self)}


def cost_task(length: int) -> TaskSpec:
    make = functools.partial(CostEnv, terminate_at=length)
    return TaskSpec(name=f"cost-{length}", make=make, max_episode_steps=2 * length)


class Costs(RLlibCallback):
    """Adds up an info over each whole episode, and logs it by task."""

    def on_episode_end(
        self,
        *,
        episode: Any,
        prev_episode_chunks: Any,
        env: Any,
        env_index: int,
        metrics_logger: Any,
        **kwargs: Any,
    ) -> None:
        chunks = [*prev_episode_chunks, episode]
        cost = sum(info["cost"] for chunk in chunks for info in chunk.get_infos() if "cost" in info)
        task = env.envs[env_index].unwrapped.next_task
        assert episode.custom_data[TASK_ID] == task
        metrics_logger.log_value(("cost", f"task{task}"), cost, reduce="mean")
        metrics_logger.log_value(("ended", f"task{task}"), 1, reduce="sum")


def costs_config() -> EZMConfig:
    config = tiny_config([cost_task(SHORT), cost_task(LONG)]).callbacks(Costs)
    config.reporting(min_sample_timesteps_per_iteration=2 * LONG)
    config.search(num_simulations=1, num_candidates=2, policy_candidates=1)
    return config.evaluation(evaluation_interval=1, evaluation_duration=ASKED)


def total(length: int) -> float:
    return sum(range(1, length + 1))


@pytest.mark.parametrize("remote", [0, 1])
def test_what_is_logged_at_the_end_of_an_episode_arrives(ray_cluster: None, remote: int) -> None:
    config = costs_config()
    config.env_runners(num_env_runners=remote).evaluation(evaluation_num_env_runners=remote)
    algorithm = config.build_algo()
    try:
        results = [algorithm.train() for _ in range(2)]
    finally:
        algorithm.stop()
    for result in results:
        evaluated = result["evaluation"]["env_runners"]
        assert evaluated["ended"] == {"task0": ASKED, "task1": ASKED}, "once for each counted one"
        assert evaluated["cost"] == {"task0": total(SHORT), "task1": total(LONG)}
        assert evaluated["num_episodes"] == 2 * ASKED
        trained = result["env_runners"]
        assert trained["cost"]["task0"] == total(SHORT)
        assert trained["ended"]["task0"] == result["env_runners"]["num_episodes"] - trained.get(
            "ended", {}
        ).get("task1", 0)


class Recorder(RLlibCallback):
    """Counts the calls of each hook on an env runner, and looks at what they are given."""

    calls: Counter[str] = Counter()
    steps: Counter[str] = Counter()

    def on_environment_created(self, *, env: Any, env_context: Any, env_runner: Any, **kw: Any):
        assert isinstance(env, SlotVector)
        assert isinstance(env_context, EnvContext)
        assert env_context["termination"] == "respect"
        assert env_runner.env.unwrapped is env
        self.calls["on_environment_created"] += 1

    def on_episode_created(self, *, episode: Any, **kw: Any) -> None:
        assert TASK_ID in episode.custom_data
        assert episode.t == 0
        self.calls["on_episode_created"] += 1

    def on_episode_start(self, *, episode: Any, **kw: Any) -> None:
        assert episode.get_infos(-1) == {"note": "reset"}
        self.calls["on_episode_start"] += 1

    def on_episode_step(self, *, episode: Any, **kw: Any) -> None:
        assert episode.get_infos(-1)["cost"] == episode.t
        self.steps[episode.id_] += 1

    def on_episode_end(self, *, episode: Any, **kw: Any) -> None:
        assert episode.is_done
        assert episode.get_infos(-1)["cost"] == episode.t == self.steps[episode.id_]
        self.calls["on_episode_end"] += 1

    def on_sample_end(self, *, samples: Any, **kw: Any) -> None:
        assert all(chunk.custom_data[EPISODE_INDEX] == 0 for chunk in samples)
        assert all("handle" in chunk.get_infos(-1) for chunk in samples)
        self.calls["decisions"] += sum(len(chunk) for chunk in samples)


def test_an_evaluation_calls_the_hooks_of_its_own_episodes_only() -> None:
    config = costs_config().callbacks(Recorder).get_evaluation_config_object()
    Recorder.calls.clear()
    runner = MultiTaskEnvRunner(config=config, worker_index=0, num_workers=0)
    for evaluation in (1, 2):
        played: list[PlayedEpisode] = runner.play_episodes()
        assert sorted(episode.length for episode in played) == [SHORT] * ASKED + [LONG] * ASKED
        assert Recorder.calls == {
            "on_environment_created": 1,
            **dict.fromkeys(
                ("on_episode_created", "on_episode_start", "on_episode_end"),
                2 * ASKED * evaluation,
            ),
            "decisions": ASKED * (SHORT + LONG) * evaluation,
        }
    runner.stop()


def test_what_callbacks_log_is_told_apart_from_rllibs_own() -> None:
    config = costs_config().callbacks(RLlibCallback).get_evaluation_config_object()
    runner = MultiTaskEnvRunner(config=config, worker_index=0, num_workers=0)
    assert runner.play().metrics == {}
    assert runner.play().metrics == {}
    runner.stop()


def test_only_our_infos_leave_the_env_runner() -> None:
    config = costs_config().callbacks(RLlibCallback)
    runner = MultiTaskEnvRunner(config=config, worker_index=0, num_workers=0)
    for chunk in runner.sample():
        assert chunk.get_infos() == [{}] * (len(chunk) + 1)
        assert len(chunk.get_observations()["obs"]) == len(chunk) + 1
    runner.stop()


def note(calls: Counter[str], hook: str, **kwargs: Any) -> None:
    calls[hook] += 1


ALGORITHM_HOOKS = (
    "on_algorithm_init",
    "on_train_result",
    "on_evaluate_start",
    "on_evaluate_end",
    "on_env_runners_recreated",
    "on_checkpoint_loaded",
)
"""Hooks that are called in the algorithm's process, as functions of `.callbacks()`."""


class Watched(RLlibCallback):
    """Looks at a restart: the env runners in question can be reached."""

    recreated: list[int] = []

    def on_env_runners_recreated(
        self, *, algorithm: Any, env_runner_group: Any, env_runner_indices: Any, **kwargs: Any
    ) -> None:
        assert kwargs["is_evaluation"] is False
        tasks: list[TaskSet] = env_runner_group.foreach_env_runner(
            lambda runner: runner.tasks,
            remote_worker_ids=env_runner_indices,
            local_env_runner=False,
        )
        assert len(tasks) == len(env_runner_indices)
        self.recreated.extend(env_runner_indices)


@pytest.fixture
def calls() -> Iterator[Counter[str]]:
    Watched.recreated.clear()
    yield Counter()


def test_the_hooks_of_the_algorithm_are_called(
    ray_cluster: None, calls: Counter[str], tmp_path: Path
) -> None:
    hooks: dict[str, Callable[..., None]] = {
        hook: functools.partial(note, calls, hook) for hook in ALGORITHM_HOOKS
    }
    config = costs_config().callbacks(Watched, **hooks).env_runners(num_env_runners=2)
    config.fault_tolerance(delay_between_env_runner_restarts_s=0)
    config.evaluation(evaluation_duration=1)
    # Functions that count here must stay those of this process: RLlib copies a config.
    algorithm: EZM = config.build_algo(use_copy=False)
    try:
        algorithm.train()
        (pid, _) = algorithm.env_runner_group.foreach_env_runner(
            lambda runner: os.getpid(), local_env_runner=False
        )
        os.kill(pid, signal.SIGKILL)
        for _ in range(40):
            algorithm.train()
            if algorithm.num_env_runner_restarts:
                break
        folder = algorithm.save(str(tmp_path / "checkpoint")).checkpoint.path
        algorithm.load_checkpoint(folder)
    finally:
        algorithm.stop()
    assert algorithm.num_env_runner_restarts == len(Watched.recreated) == 1
    assert calls["on_env_runners_recreated"] == 1
    assert calls["on_algorithm_init"] == calls["on_checkpoint_loaded"] == 1
    assert calls["on_train_result"] == calls["on_evaluate_start"] == algorithm.iteration
    assert calls["on_evaluate_end"] == algorithm.iteration
