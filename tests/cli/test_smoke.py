from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.tiny import scripted_task
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_ezm import EZMConfig
from rllib_ezm.cli.main import main
from rllib_ezm.cli.smoke import scale_down
from rllib_ezm.utils.errors import UserError

EXAMPLE = """
from rllib_ezm import EZMConfig

config = (
    EZMConfig()
    .tasks([{"name": "dmc:cartpole-balance", "action_repeat": 4}, "gym:Pendulum-v1"])
    .training(replay_ratio=0.4)
    .evaluation(evaluation_interval=30)
)
stop = {"training_iteration": 1}
"""


def big_config() -> EZMConfig:
    tasks = [scripted_task(80), scripted_task(7, obs_dim=3, action_dim=2, terminates=False)]
    return EZMConfig().tasks(tasks, envs_per_task=4, termination="ignore")


def test_what_costs_time_shrinks() -> None:
    big = big_config().evaluation(evaluation_interval=30)
    small = scale_down(big)
    small.validate()
    assert (small.latent_dim, small.num_simulations, small.num_candidates) == (32, 8, 8)
    assert small.train_batch_size_per_learner == 2 * 2
    assert small.num_steps_sampled_before_learning_starts == small.num_random_steps == 20 * 2
    assert (small.evaluation_interval, small.evaluation_duration) == (1, 1)
    assert [task.max_episode_steps for task in small.get_task_set().specs] == [50, 50]
    assert big.latent_dim == 512, "the original stays as it is"
    assert big.get_task_set().specs[0].max_episode_steps == 800


def test_the_structure_stays() -> None:
    big = big_config()
    small = scale_down(big)
    for name in (
        "num_blocks",
        "num_value_heads",
        "num_bins",
        "task_embedding",
        "unroll_steps",
        "td_steps",
        "value_mixing",
        "replay_ratio",
        "value_support",
        "num_env_runners",
    ):
        assert getattr(small, name) == getattr(big, name)
    assert small.evaluation_interval is None, "what is off stays off"
    assert small.env_config["termination"] == "ignore"
    assert small.get_task_set().names == big.get_task_set().names
    assert small.get_task_set().obs_dims == big.get_task_set().obs_dims
    assert small.policy_candidates / small.num_candidates == 4 / 16


def test_nothing_grows_and_a_grid_is_left_alone() -> None:
    tiny = big_config().world_model(latent_dim=8).search(num_simulations=2, num_candidates=2)
    tiny.search(policy_candidates=2).replay(capacity_per_task=50)
    tiny.training(train_batch_size_per_learner=3)
    tiny.num_simulations = tune.grid_search([4, 32])
    small = scale_down(tiny)
    assert (small.latent_dim, small.capacity_per_task) == (8, 50)
    assert (small.num_candidates, small.policy_candidates) == (2, 2)
    assert small.train_batch_size_per_learner == 3
    assert small.num_simulations == {"grid_search": [4, 32]}


def test_other_algorithms_are_refused() -> None:
    with pytest.raises(UserError, match="not PPOConfig: give --stop"):
        scale_down(PPOConfig())


def test_a_smoke_run_reaches_updates_and_an_evaluation(tmp_path: Path, ray_cluster: None) -> None:
    path = tmp_path / "example.py"
    path.write_text(EXAMPLE)
    run = ["train", "file", str(path), "--local-dir", str(tmp_path), "-n", "run"]
    assert main([*run, "--smoke"]) == 0
    (results,) = (tmp_path / "run").glob("*/result.json")
    last = json.loads(results.read_text().splitlines()[-1])
    assert last["num_updates_lifetime"] >= 10
    assert last["protocol"] == "benchmark"
    assert last["tasks"]["dmc:cartpole-balance"]["physics_errors"] == 0
    assert last["evaluation"]["tasks"]["gym:Pendulum-v1"]["episodes"] == 1
    assert main(["train", "file", str(path), "--resume", str(tmp_path / "run")]) == 0
