"""Stateful connectors: what they have learned is there where a checkpoint is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny import scripted_task, tiny_config
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter

from rllib_ezm.algorithm.checkpoint_evaluation import evaluate_checkpoint, load_env_runner
from rllib_ezm.baselines import on_tasks
from rllib_ezm.utils.errors import UserError

TASKS = [scripted_task(5), scripted_task(8, 3, 2)]


class ScaleByLargest(ConnectorV2):
    """Divides observations by the largest number that it has met."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 1.0

    def __call__(self, *, batch: Any, episodes: list[Any], **kwargs: Any) -> Any:
        for episode in episodes:
            observation = episode.get_observations(-1)
            self.largest = max(self.largest, float(np.abs(observation["obs"]).max()))
            scaled = observation | {"obs": observation["obs"] / np.float32(self.largest)}
            episode.set_observations(new_data=scaled, at_indices=-1)
        return batch

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {"largest": self.largest}

    def set_state(self, state: dict[str, Any]) -> None:
        self.largest = state["largest"]


def ezm() -> AlgorithmConfig:
    return tiny_config(TASKS).env_runners(env_to_module_connector=lambda *_: ScaleByLargest())


def ppo() -> AlgorithmConfig:
    config = on_tasks(PPOConfig(), TASKS).training(
        train_batch_size_per_learner=20, minibatch_size=10, num_epochs=1
    )
    return config.env_runners(
        env_to_module_connector=lambda *_: [FlattenObservations(), MeanStdFilter()]
    )


@pytest.mark.parametrize("make", [ezm, ppo])
def test_the_state_of_a_connector_is_evaluated(
    ray_cluster: None, tmp_path: Path, make: Any
) -> None:
    config = make().reporting(min_sample_timesteps_per_iteration=20, min_time_s_per_iteration=0)
    algorithm = config.build_algo()
    try:
        algorithm.train()
        learned = algorithm.env_runner._env_to_module.get_state()
        path = Path(algorithm.save_to_path(tmp_path / "checkpoint"))
    finally:
        algorithm.stop()
    runner = load_env_runner(path, episodes=1, num_simulations=None, seed=None)
    restored = runner._env_to_module.get_state()
    assert restored.keys() == learned.keys()
    np.testing.assert_equal(restored, learned)
    (path / "env_runner").rename(path / "elsewhere")
    with pytest.raises(UserError, match="its connectors"):
        evaluate_checkpoint(path, episodes=1)


@pytest.mark.parametrize("connector", [MeanStdFilter, FlattenObservations])
def test_connectors_for_flat_observations_are_refused(
    ray_cluster: None, connector: Callable[[], ConnectorV2]
) -> None:
    config = tiny_config(TASKS).env_runners(env_to_module_connector=lambda *_: connector())
    with pytest.raises(ValueError, match=f"{type(connector()).__name__} is not for EZM"):
        config.build_algo()
