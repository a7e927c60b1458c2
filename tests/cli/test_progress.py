from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from rllib_ezm.cli.progress import ProgressPrinter, format_duration, format_result, missing_stop_key


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.9, "0:00:00"), (61, "0:01:01"), (7322, "2:02:02")]
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_line_of_a_full_result() -> None:
    result = {
        "training_iteration": 3,
        "num_env_steps_sampled_lifetime": 12000.0,
        "num_updates_lifetime": 11500,
        "env_runners/episode_return_mean": 123.456,
        "normalized_score_mean": 0.1234,
    }
    assert format_result(result, 65.0, "trial 1") == (
        "[0:01:05]  trial 1  iter 3  env steps 12,000  updates 11,500  return 123.46  score 0.123"
    )


@pytest.mark.parametrize("unknown", [math.nan, None])
def test_what_does_not_exist_yet_is_left_out(unknown: Any) -> None:
    result = {"training_iteration": 1, "env_runners/episode_return_mean": unknown}
    assert format_result(result, 0.0) == "[0:00:00]  iter 1"


def test_a_mistyped_stop_key_is_named_once_with_its_neighbors(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printer = ProgressPrinter()
    printer.setup()
    trial: Any = SimpleNamespace(
        experiment_tag="0",
        trial_id="x",
        stopping_criterion={"training_iterations": 5, "env_runners/episode_return_mean": 1.0},
    )
    result = {"training_iteration": 1, "env_runners": {"episode_return_mean": 0.5}}
    for _ in range(2):
        printer.on_trial_result(1, [trial], trial, result)
    lines = capsys.readouterr().out.splitlines()
    assert [("no key" in line) for line in lines] == [False, True, False]
    assert lines[1] == missing_stop_key("training_iterations", ["training_iteration"])
    assert "reported keys like it: training_iteration" in lines[1]


def test_several_trials_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    printer = ProgressPrinter()
    trials: Any = [
        SimpleNamespace(experiment_tag=tag, trial_id="x", stopping_criterion={})
        for tag in ("0_lr=0.1", "1_lr=0.2")
    ]
    printer.on_trial_result(1, trials, trials[1], {"training_iteration": 1})
    printer.on_trial_error(1, trials, trials[0])
    first, second = capsys.readouterr().out.splitlines()
    assert "trial 1 lr=0.2" in first
    assert second.endswith("trial 0 lr=0.1 failed")
