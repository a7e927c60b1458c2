"""What is searched anew in a batch is in the replay buffer afterwards, in the right states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.tiny import tiny_config

from rllib_ezm import EZM

pytestmark = pytest.mark.usefixtures("ray_cluster")

TASKS = (
    {"name": "gym:Pendulum-v1", "max_episode_steps": 20},
    {"name": "dmc:cartpole-balance", "max_episode_steps": 33},
)
BATCH = 8


def run(num_learners: int, ratio: float, monkeypatch: pytest.MonkeyPatch) -> tuple[EZM, list[Any]]:
    """An algorithm after two iterations, and (batch, targets, update) of each writing back."""
    written: list[Any] = []
    store = EZM.store_targets

    def record(algorithm: EZM, batch: Any, targets: np.ndarray, searched_at: int) -> None:
        store(algorithm, batch, targets, searched_at)
        written.append((batch, targets, searched_at))

    monkeypatch.setattr(EZM, "store_targets", record)
    config = (
        tiny_config([*TASKS])
        .learners(num_learners=num_learners)
        .training(
            train_batch_size_per_learner=BATCH // max(num_learners, 1),
            reanalyze_ratio=ratio,
            policy_loss="distribution",
            replay_ratio=0.3,
        )
        .env_runners(num_env_runners=min(num_learners, 1))
        .reporting(min_sample_timesteps_per_iteration=100)
    )
    algorithm = config.build_algo()
    for _ in range(2):
        algorithm.train()
    return algorithm, written


@pytest.mark.parametrize(
    "num_learners", [0, pytest.param(2, marks=pytest.mark.slow)], ids=["local", "2 learners"]
)
def test_each_update_stores_what_it_searched(
    num_learners: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm, written = run(num_learners, 0.25, monkeypatch)
    state, written = algorithm.replay_buffer.get_state(), [*written]
    result = algorithm.train()
    algorithm.stop()
    states_of_batch = BATCH * (algorithm.config.unroll_steps + 1)
    latest: dict[tuple[int, ...], tuple[np.ndarray, int]] = {}
    for number, (batch, targets, searched_at) in enumerate(written):
        assert searched_at == number
        fresh = targets[..., 0] > 0
        # Each learner rounds its own share.
        assert 0 < fresh.sum() <= 0.25 * states_of_batch + num_learners
        assert (batch["step_mask"][:, : fresh.shape[1]][fresh] == 1).all()
        for row, column in zip(*np.nonzero(fresh), strict=True):
            key = (int(batch["task_ids"][row]), *batch["state_index"][row, column].tolist())
            latest[key] = targets[row, column, 1:], searched_at
    assert len(latest) > 20
    for (task, slot, serial), (target, searched_at) in latest.items():
        columns = state["rings"][str(task)]["columns"]
        assert columns["serials"][slot] == serial
        assert columns["searched_at"][slot] == searched_at
        stored = [columns[name][slot] for name in ("policy_means", "policy_stds")]
        np.testing.assert_array_equal(
            [columns["search_values"][slot], *np.concatenate(stored)], target
        )
    ages = result["target_age"]
    assert 0 <= ages["p50"] <= ages["p95"] <= algorithm.num_updates


def test_with_full_reanalyze_nothing_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, written = run(0, 1.0, monkeypatch)
    assert written == []
    assert "target_age" not in algorithm.train()
    algorithm.stop()
