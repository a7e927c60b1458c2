"""RLlib's callbacks: every hook is called, with what RLlib promises, as often as it should be."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
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
from rllib_ezm.tasks.spec import TaskSpec
from rllib_ezm.tasks.vector import SlotVector

SHORT, LONG = 3, 60
"""Lengths of the two tasks' episodes, both sides of a chunk of an evaluation [decisions]."""

ASKED = 2
"""Episodes of each task in an evaluation."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models wait for each other's threads where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
        # The first info of a chunk is that of a reset, or the last one of the chunk before.
        cost = sum(info["cost"] for chunk in chunks for info in chunk.get_infos()[1:])
        task = env.envs[env_index].unwrapped.next_task
        assert episode.custom_data[TASK_ID] == task
        metrics_logger.log_value(("cost", f"task{task}"), cost, reduce="mean")
        metrics_logger.log_value(("ended", f"task{task}"), 1, reduce="sum")


def costs_config() -> EZMConfig:
    config = tiny_config([cost_task(SHORT), cost_task(LONG)]).callbacks(Costs)
    config.reporting(min_sample_timesteps_per_iteration=2 * LONG)
    config.training(num_steps_sampled_before_learning_starts=10_000)
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
        results = [algorithm.train() for _ in range(2 - remote)]
    finally:
        algorithm.stop()
    for result in results:
        evaluated = result["evaluation"]["env_runners"]
        assert evaluated["ended"] == {"task0": ASKED, "task1": ASKED}, "once for each counted one"
        assert evaluated["cost"] == {"task0": total(SHORT), "task1": total(LONG)}
        assert evaluated["num_episodes"] == 2 * ASKED
    for result in results[:1]:  # later, a task may have ended no episode
        trained = result["env_runners"]
        assert trained["cost"]["task0"] == total(SHORT)
        assert sum(trained["ended"].values()) == trained["num_episodes"]


class Recorder(RLlibCallback):
    """Counts the calls of each hook on an env runner, and looks at what they are given."""

    calls: ClassVar[Counter[str]] = Counter()
    steps: ClassVar[Counter[str]] = Counter()

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
    "on_checkpoint_loaded",
)
"""Hooks in the algorithm's process, as functions; `test_recovery` has the one for restarts."""


def test_the_hooks_of_the_algorithm_are_called(ray_cluster: None, tmp_path: Path) -> None:
    calls: Counter[str] = Counter()
    hooks: dict[str, Callable[..., None]] = {
        hook: functools.partial(note, calls, hook) for hook in ALGORITHM_HOOKS
    }
    config = costs_config().tasks([cost_task(SHORT)]).callbacks(RLlibCallback, **hooks)
    # The functions count in this process and must stay the same: RLlib copies a config.
    algorithm: EZM = config.build_algo(use_copy=False)
    try:
        for _ in range(2):
            algorithm.train()
        algorithm.load_checkpoint(algorithm.save(str(tmp_path / "checkpoint")).checkpoint.path)
    finally:
        algorithm.stop()
    assert calls == {
        "on_algorithm_init": 1,
        "on_train_result": 2,
        "on_evaluate_start": 2,
        "on_evaluate_end": 2,
        "on_checkpoint_loaded": 1,
    }
