"""Asynchronous training on three nodes, of which one is killed and another one added.

A process of its own: it starts its own cluster. The nodes are processes of this machine.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.rllib.core import DEFAULT_MODULE_ID

sys.path.insert(0, str(Path(__file__).parent.parent))

from helpers.tiny import tiny_config

from rllib_ezm.utils.errors import UserError

TASKS = (
    {"name": "gym:Pendulum-v1", "max_episode_steps": 20},
    {"name": "dmc:cartpole-balance", "max_episode_steps": 33},
)
RUNNER_NODE = {"num_cpus": 0, "resources": {"runner": 1}}


def main() -> None:
    cluster = Cluster(
        initialize_head=True,
        connect=True,
        head_node_args={"num_cpus": 4, "include_dashboard": False},
    )
    lost = cluster.add_node(**RUNNER_NODE)
    cluster.add_node(**RUNNER_NODE)
    cluster.wait_for_nodes()
    config = (
        tiny_config([*TASKS])
        .env_runners(
            num_env_runners=2,
            num_cpus_per_env_runner=0,
            custom_resources_per_env_runner={"runner": 1},
        )
        .learners(num_learners=1)
        .asynchrony(True, num_reanalyze_workers=1)
        .training(replay_ratio=0.5)
        .reporting(min_sample_timesteps_per_iteration=100)
    )
    misplaced = config.copy(copy_frozen=False).env_runners(num_cpus_per_env_runner=1)
    # No node has both, although all together do. This cluster might grow; one's own Ray cannot.
    refused = pytest.raises(UserError, match=r"asks for 1 CPU .*and 1 runner, but no node")
    with mock.patch("rllib_ezm.execution.resources.is_own_cluster", return_value=True), refused:
        misplaced.build_algo()
    algorithm = config.build_algo()
    for _ in range(2):
        algorithm.train()
    cluster.remove_node(lost, allow_graceful=False)
    deadline = time.monotonic() + 120
    while algorithm.env_runner_group.num_healthy_remote_workers() == 2:
        assert time.monotonic() < deadline, "nobody noticed"
        algorithm.train()
    before = algorithm.task_statistics.env_steps.copy()
    for _ in range(3):
        algorithm.train()
    assert algorithm.env_runner_group.num_healthy_remote_workers() == 1
    assert (algorithm.task_statistics.env_steps > before).all(), "one runner collects all tasks"
    cluster.add_node(**RUNNER_NODE)
    while not algorithm.num_env_runner_restarts:
        assert time.monotonic() < deadline + 120, "the runner did not come back"
        algorithm.train()
    for _ in range(3):
        result = algorithm.train()
    assert algorithm.env_runner_group.num_healthy_remote_workers() == 2
    steps = [task["env_steps"] for task in result["tasks"].values()]
    assert sum(steps) == result["replay_transitions"] == len(algorithm.replay_buffer)
    assert abs(steps[0] - steps[1]) <= 100
    assert math.isfinite(result["learners"][DEFAULT_MODULE_ID]["value_loss"])
    assert 0 <= algorithm.num_updates_due - algorithm.num_updates <= 50 + 20
    algorithm.stop()
    ray.shutdown()
    cluster.shutdown()
    print("sound", steps, result["num_updates_lifetime"])


if __name__ == "__main__":
    main()
