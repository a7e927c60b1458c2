"""An evaluation is played, and reported, as `evaluation_config` says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.tiny import scripted_task, tiny_config

from rllib_ezm.algorithm.checkpoint_evaluation import evaluate_checkpoint, load_env_runner
from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.algorithm.ezm import EZM

FALL, TIME_LIMIT = 3, 30
"""Where the task's episodes terminate, and where its time limit truncates them [decisions]."""


@pytest.fixture(scope="module")
def algorithm() -> Iterator[EZM]:
    """Trained by the benchmark protocol and evaluated by that of the released code."""
    config = tiny_config([scripted_task(FALL)]).evaluation(
        evaluation_interval=1,
        evaluation_duration=2,
        evaluation_config={"env_config": {"termination": "ignore"}, "num_simulations_at_eval": 0},
    )
    config.reporting(min_sample_timesteps_per_iteration=20)
    built: EZM = config.build_algo()
    yield built
    built.stop()


def test_a_result_names_the_protocol_that_was_played(ray_cluster: None, algorithm: EZM) -> None:
    result = algorithm.train()
    assert result["protocol"] == "benchmark"
    assert result["evaluation"]["protocol"] == "released"
    evaluated = result["evaluation"]["tasks"]["scripted-3"]["episode_return_mean"]
    assert evaluated == sum(range(1, TIME_LIMIT + 1))
    assert result["tasks"]["scripted-3"]["episode_return_mean"] == sum(range(1, FALL + 1))
    assert algorithm.evaluate()["protocol"] == "released"


def test_a_checkpoint_is_evaluated_as_in_its_run(
    ray_cluster: None, algorithm: EZM, tmp_path: Path
) -> None:
    path = Path(algorithm.save_to_path(tmp_path / "checkpoint"))
    report = evaluate_checkpoint(path, episodes=1)
    assert (report.protocol, report.tasks[0].lengths) == ("released", [TIME_LIMIT])
    runner = load_env_runner(path, episodes=1, num_simulations=None, seed=None)
    assert runner.config.num_simulations_at_eval == 0
    assert runner.config.explore is False
    other = evaluate_checkpoint(path, episodes=1, num_simulations=4, protocol="benchmark")
    assert (other.protocol, other.tasks[0].lengths) == ("benchmark", [FALL])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"env_config": {"tasks": [scripted_task(4)]}}, "the tasks that were trained, in their"),
        ({"env_config": {"termination": "never"}}, "termination='never' must be one of"),
        ({"env_config": {"terminations": "ignore"}}, "Did you mean termination"),
        ({"explore": True}, "without exploration"),
        ({"num_simulation_at_eval": 2}, "Did you mean num_simulations_at_eval"),
        ({"num_simulations_at_eval": "2"}, "num_simulations_at_eval='2' must be an integer"),
    ],
)
def test_a_wrong_evaluation_config_is_refused_before_the_run(
    changes: dict[str, object], says: str
) -> None:
    config: EZMConfig = tiny_config([scripted_task(FALL)])
    config.evaluation(evaluation_config=changes)
    with pytest.raises((ValueError, AttributeError), match=says):
        config.validate()
