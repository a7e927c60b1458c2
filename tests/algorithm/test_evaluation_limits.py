"""An evaluation that takes too long, or whose environments never work, says which task it was."""

from __future__ import annotations

import functools
import logging

import pytest
from helpers.faulty_env import FaultyEnv
from helpers.tiny import scripted_task, tiny_config

from rllib_ezm.tasks import EnvironmentFailedError, TaskSpec

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_an_evaluation_that_takes_too_long_does_not_count_and_names_its_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = tiny_config([scripted_task(3), scripted_task(90)])
    config.evaluation(
        evaluation_interval=9, evaluation_duration=1, evaluation_sample_timeout_s=0.001
    )
    algorithm = config.build_algo()
    try:
        with caplog.at_level(logging.WARNING):
            results = algorithm.evaluate()
        assert "normalized_score_mean" not in results.get("evaluation", results)
        assert "evaluation_sample_timeout_s=0.001" in caplog.text
        assert "it waited for scripted-90 (" in caplog.text
        assert algorithm.evaluation_score_mean is None
    finally:
        algorithm.stop()


def test_a_broken_environment_ends_an_evaluation_with_its_error() -> None:
    task = TaskSpec("broken", functools.partial(FaultyEnv, "always"))
    config = tiny_config([task], max_consecutive_env_failures=2)
    algorithm = config.evaluation(evaluation_interval=9).build_algo()
    try:
        with pytest.raises(EnvironmentFailedError, match=r"broken: step\(\) raised ValueError"):
            algorithm.evaluate()
    finally:
        algorithm.stop()
