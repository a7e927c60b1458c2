"""What a user does with an algorithm in Python: relative paths, an evaluation out of turn."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tiny import scripted_task, tiny_config
from ray.rllib.algorithms.algorithm import Algorithm

from rllib_ezm import EZM

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def checkpoint(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an algorithm without an `evaluation_interval`, which was evaluated nevertheless."""
    config = tiny_config([scripted_task(4), scripted_task(6)])
    algorithm = config.evaluation(evaluation_duration=2).build_algo()
    try:
        assert algorithm.eval_env_runner_group is None
        tasks = algorithm.evaluate()["tasks"]
        assert [task["episodes"] for task in tasks.values()] == [2, 2]
        assert [task["episode_return_mean"] for task in tasks.values()] == [10.0, 21.0]
        assert algorithm.evaluate()["tasks"]["scripted-6"]["episode_return_mean"] == 21.0
        folder = tmp_path_factory.mktemp("checkpoints") / "whole"
        algorithm.save_to_path(folder)
    finally:
        algorithm.stop()
    return folder


@pytest.mark.parametrize("algorithm_class", [Algorithm, EZM])
@pytest.mark.parametrize("path", ["whole", Path("whole"), "../checkpoints0/whole"])
def test_a_checkpoint_is_opened_from_a_relative_path(
    algorithm_class: type[Algorithm],
    path: str | Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    algorithm = algorithm_class.from_checkpoint(path)
    try:
        assert isinstance(algorithm, EZM)
        assert algorithm.evaluation_score_mean == 15.5
        algorithm.restore_from_path(path)
    finally:
        algorithm.stop()
