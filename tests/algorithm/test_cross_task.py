from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import build_module, scripted_task, tiny_config
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.algorithm.cross_task import (
    ACTING_TASK,
    MEAN_STRETCH,
    NEXT_DRAW,
    CrossTaskExploration,
)
from rllib_ezm.algorithm.env_runner import TASK_ID, MultiTaskEnvRunner
from rllib_ezm.algorithm.rl_module import POLICY_MEAN, POLICY_STD, SEARCH_VALUE

DIMS = ((2, 1), (3, 1), (2, 1), (2, 1))
"""Observation and action dims of the tasks: the second has a body of its own."""


def config_with(probability: float) -> EZMConfig:
    tasks = [scripted_task(20 + index, *dims) for index, dims in enumerate(DIMS)]
    return tiny_config(tasks).training(cross_task_probability=probability)


def acting_tasks(
    probability: float, episodes: list[SingleAgentEpisode], *, explore: bool = True
) -> dict[str, Any]:
    tasks = config_with(probability).get_task_set()
    connector = CrossTaskExploration(tasks, probability)
    batch = connector(rl_module=None, batch={}, episodes=episodes, explore=explore)
    return {key[0]: items[0] for key, items in batch.get(ACTING_TASK, {}).items()}


def episode_of(task: int, **data: Any) -> SingleAgentEpisode:
    episode = SingleAgentEpisode()
    episode.custom_data.update({TASK_ID: task, **data})
    return episode


def test_the_share_of_stretches_in_which_another_policy_acts() -> None:
    np.random.seed(0)
    episodes = [episode_of(task) for task in range(4) for _ in range(1000)]
    acting = acting_tasks(0.25, episodes)
    for task, source_tasks in enumerate(((2, 3), (), (0, 3), (0, 2))):
        own = episodes[1000 * task : 1000 * (task + 1)]
        drawn = np.array([acting[episode.id_] for episode in own])
        borrowed = drawn != task
        assert set(drawn) == {task, *source_tasks}
        if source_tasks:
            assert abs(borrowed.mean() - 0.25) < 0.05
            assert abs((drawn == source_tasks[0]).sum() / borrowed.sum() - 0.5) < 0.12
            steps = [episode.custom_data[NEXT_DRAW] for episode in own]
            assert min(steps) >= 1
            assert abs(np.mean(steps) / MEAN_STRETCH - 1) < 0.1


def test_a_policy_acts_until_the_next_draw() -> None:
    episode = episode_of(0, **{NEXT_DRAW: 2, ACTING_TASK: 3})
    acting = []
    for t in range(3):
        episode.t = t
        acting.append(acting_tasks(0.0, [episode])[episode.id_])
    assert acting == [3, 3, 0]
    assert episode.custom_data[NEXT_DRAW] > 2


def test_without_exploration_nothing_is_borrowed() -> None:
    episode = episode_of(0)
    assert acting_tasks(1.0, [episode], explore=False) == {}
    assert set(episode.custom_data) == {TASK_ID}


def test_another_policy_acts_and_the_search_of_the_own_task_is_kept() -> None:
    torch.manual_seed(3)
    module = build_module(config_with(0.5), inference_only=True)
    for parameter in module.parameters():  # untrained heads answer the same to everything
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    module.settings = None  # the mean of the policy: no randomness
    obs = {"obs": torch.randn(3, 3) * torch.tensor([1.0, 1.0, 0.0])}

    def act(task_id: list[int], **columns: Any) -> dict[str, torch.Tensor]:
        observation = {**obs, "task_id": torch.tensor(task_id)}
        result: dict[str, torch.Tensor] = module.forward_exploration(
            {Columns.OBS: observation, **columns}
        )
        return result

    own, other = act([0, 2, 3]), act([3, 2, 0])
    mixed = act([0, 2, 3], **{ACTING_TASK: torch.tensor([3, 2, 0])})
    assert not torch.allclose(own[Columns.ACTIONS][0], other[Columns.ACTIONS][0])
    torch.testing.assert_close(mixed[Columns.ACTIONS], other[Columns.ACTIONS])
    for column in (SEARCH_VALUE, POLICY_MEAN, POLICY_STD):
        torch.testing.assert_close(mixed[column], own[column])


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_episodes_of_an_env_runner_stay_those_of_their_task(probability: float) -> None:
    config = config_with(probability)
    runner = MultiTaskEnvRunner(config=config, worker_index=0, num_workers=0)
    seen: list[torch.Tensor] = []
    forward = runner.module.forward_exploration

    def spy(batch: dict[str, Any], **kwargs: Any) -> Any:
        seen.append(batch.get(ACTING_TASK, batch[Columns.OBS]["task_id"]).clone())
        return forward(batch, **kwargs)

    runner.module.forward_exploration = spy
    chunks = runner.sample(num_timesteps=40)
    for chunk in chunks:
        assert set(chunk.get_observations()["task_id"].tolist()) == {chunk.custom_data[TASK_ID]}
    first = [int(task) for task in seen[0]]
    assert (first == [0, 1, 2, 3]) == (probability == 0.0)
    assert first[1] == 1, "nobody lends to the task with a body of its own"
    runner.sample(num_timesteps=40, explore=False, force_reset=True)
    runner.stop()
