"""Several learners: the gradient, the weights and the statistics of one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import fill_replay, spaces, tiny_config
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.algorithm.batches import shard_for_learners
from rllib_ezm.algorithm.learner import PRIORITIES

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]

TASKS = (
    {"name": "gym:Pendulum-v1", "max_episode_steps": 20},
    {"name": "dmc:cartpole-balance", "max_episode_steps": 33},
)
FULL: dict[str, Any] = {}
ABLATED = {"path_consistency_coeff": 0.0, "temporal_consistency_coeff": 0.0}


def learner_config(num_learners: int, batch_size: int = 8) -> EZMConfig:
    """`batch_size` samples an update in all; nothing random in the targets."""
    return (
        tiny_config([*TASKS])
        .learners(num_learners=num_learners)
        .training(
            train_batch_size_per_learner=batch_size // max(num_learners, 1),
            reanalyze_ratio=0.0,
            policy_loss="best_action",
            value_mixing="variance",
        )
        .search(value_reduction="mean")
    )


def build(config: EZMConfig) -> LearnerGroup:
    config.validate()
    return config.build_learner_group(spaces=spaces(config.get_task_set()))


def two_updates(group: LearnerGroup, config: EZMConfig) -> dict[str, Any]:
    """Priorities of both updates, and what every learner holds after the second."""
    replay = fill_replay(config, length=3, episodes=20)
    priorities = []
    for _ in range(2):
        batch = replay.sample(config.total_train_batch_size)
        batch = shard_for_learners(batch, config.num_learners or 1)
        results = group.update(
            batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, env_steps=8),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 0},
        )
        of_learners = [r[DEFAULT_MODULE_ID][PRIORITIES].peek() for r in results]
        found = np.concatenate([part for parts in of_learners for part in parts])
        priorities.append(found[np.argsort(batch["index"][:, 0] + 1000 * batch["task_ids"])])

    def held(learner: Any) -> dict[str, torch.Tensor]:
        module = learner.module[DEFAULT_MODULE_ID].unwrapped()
        gradients = {f"{n} gradient": p.grad for n, p in module.named_parameters()}
        known = {name: gradient for name, gradient in gradients.items() if gradient is not None}
        return {n: x.cpu() for n, x in {**known, **dict(module.named_buffers())}.items()}

    return {"priorities": priorities, "held": group.foreach_learner(held)}


@pytest.mark.parametrize(
    ("num_learners", "changes"), [(2, FULL), (4, ABLATED)], ids=["2, full", "4, ablated"]
)
def test_several_learners_are_one(num_learners: int, changes: dict[str, Any]) -> None:
    of_one, of_several = (learner_config(n).training(**changes) for n in (0, num_learners))
    one, several = build(of_one), build(of_several)
    weights = several.get_state(components="learner")["learner"]
    one.set_state({"learner": weights})
    try:
        found, priorities = unpack(two_updates(several, of_several))
    finally:
        several.shutdown()
    (expected,), expected_priorities = unpack(two_updates(one, of_one))
    assert len(found) == num_learners
    for held in found:
        assert set(held) == set(expected)
        for name, value in expected.items():
            # fp32 sums in another order; the second update starts from slightly other weights.
            torch.testing.assert_close(held[name], value, rtol=2e-3, atol=2e-4, msg=name)
    for x, y in zip(priorities, expected_priorities, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3)


def unpack(updates: dict[str, Any]) -> tuple[list[dict[str, torch.Tensor]], list[np.ndarray]]:
    return [result.get() for result in updates["held"]], updates["priorities"]


def test_a_run_with_two_learners_and_its_checkpoint(tmp_path: Path) -> None:
    config = (
        tiny_config([*TASKS])
        .learners(num_learners=2)
        .training(train_batch_size_per_learner=4, replay_ratio=0.5)
        .env_runners(num_env_runners=1)
        .reporting(min_sample_timesteps_per_iteration=60)
    )
    algorithm = config.build_algo()
    for _ in range(3):
        result = algorithm.train()
    assert math.isfinite(result["learners"][DEFAULT_MODULE_ID]["value_loss"])
    assert result["num_updates_lifetime"] >= 0.5 * (result["replay_transitions"] - 60) - 1 > 30
    assert_alike(algorithm)
    algorithm.save_to_path(tmp_path / "checkpoint")
    updates = algorithm.num_updates
    algorithm.stop()
    restored = EZM.from_checkpoint(tmp_path / "checkpoint")
    assert restored.num_updates == updates
    restored.train()
    assert restored.num_updates > updates
    assert_alike(restored)
    restored.stop()


def assert_alike(algorithm: EZM) -> None:
    """The learners hold the same weights and statistics, and draw different random numbers."""

    def state(learner: Any) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        module = learner.module[DEFAULT_MODULE_ID].unwrapped()
        return module.state_dict(), torch.random.get_rng_state()

    (first, random_1), (second, random_2) = (
        result.get() for result in algorithm.learner_group.foreach_learner(state)
    )
    different = [name for name, value in first.items() if not torch.equal(value, second[name])]
    assert different == []
    assert not torch.equal(random_1, random_2)


def test_dealt_rows_give_each_learner_its_share_of_each_task() -> None:
    batch = {"task_ids": np.repeat([0, 1, 2], [4, 4, 4]), "x": np.arange(24).reshape(12, 2)}
    rows = shard_for_learners(batch, 2)
    assert rows["task_ids"].tolist() == [0, 0, 1, 1, 2, 2] * 2
    assert sorted(rows["x"][:, 0].tolist()) == batch["x"][:, 0].tolist()
    assert shard_for_learners(batch, 1) is batch
