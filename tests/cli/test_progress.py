from __future__ import annotations

import math
import os
import re
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.tiny import scripted_task, tiny_config
from helpers.train_process import TINY, TrainProcess

from rllib_ezm.algorithm.env_runner import PlayProgress
from rllib_ezm.cli import progress as progress_module
from rllib_ezm.cli.evaluation_progress import EvaluationProgress, format_progress
from rllib_ezm.cli.progress import (
    ProgressPrinter,
    Trend,
    TrialProgress,
    format_duration,
    format_result,
    fraction_done,
    missing_stop_key,
    short_names,
    task_scores,
)
from rllib_ezm.utils.trial_folder import write_status


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
        "throughput/updates_per_s": 8.26,
        "tasks/dmc:walker-run/normalized_score": 0.1,
        "tasks/dmc:walker-stand/normalized_score": 0.15,
        "evaluation/normalized_score_mean": 0.2,
        "evaluation/tasks/dmc:walker-run/normalized_score": 0.9,
    }
    assert format_result(
        result,
        65.0,
        "trial 1",
        stop={"num_env_steps_sampled_lifetime": 48000, "time_total_s": 1e9},
        trend=Trend(score=0.0321, left_s=600.0),
        phase="evaluating",
    ) == (
        "[0:01:05]  trial 1  evaluating  iter 3  env steps 12,000 of 48,000  25%  "
        "updates 11,500 (8.3/s)  score 0.123 (+0.032)  run 0.10  stand 0.15  eval score 0.200  "
        "0:10:00 left"
    )


def test_the_return_stands_where_there_is_no_score() -> None:
    result = {"training_iteration": 1, "env_runners/episode_return_mean": 123.456}
    assert format_result(result, 0.0) == "[0:00:00]  iter 1  return 123.46"
    assert "return" not in format_result({**result, "normalized_score_mean": 0.1}, 0.0)


@pytest.mark.parametrize(
    ("stop", "fraction"),
    [
        ({}, None),
        ({"evaluation/normalized_score_mean": 0.9}, None),
        ({"num_updates_lifetime": 100}, 0.5),
        ({"num_updates_lifetime": 100, "training_iteration": 4}, 0.75),
        ({"num_updates_lifetime": 25}, 1.0),
        ({"time_total_s": 10}, None),
    ],
)
def test_the_nearest_bound_says_how_much_is_done(stop: Any, fraction: float | None) -> None:
    assert fraction_done({"num_updates_lifetime": 50, "training_iteration": 3}, stop) == fraction


def test_trend_and_time_left_follow_the_last_results() -> None:
    progress, stop = TrialProgress(), {"num_updates_lifetime": 1000}
    assert progress.trend() == Trend()
    for index in range(20):  # 10 updates in 2 s each; the last ten results count
        result = {"num_updates_lifetime": 10 * index, "normalized_score_mean": index**2}
        progress.add(result, stop, now=2.0 * index)
    score, left = progress.trend()
    assert score == 19**2 - 10**2
    assert left == pytest.approx((1000 - 190) / 5)


def test_names_of_tasks_are_short_and_many_tasks_are_summed_up() -> None:
    assert short_names(["dmc:walker-run", "dmc:walker-walk"]) == ["run", "walk"]
    assert short_names(["dmc:walker-run", "gym:Pendulum-v1"]) == [
        "dmc:walker-run",
        "gym:Pendulum-v1",
    ]
    assert short_names(["stand", "standing"]) == ["stand", "standing"]
    scores = {f"tasks/t-{index}/normalized_score": index / 10 for index in range(9)}
    assert task_scores(scores) == "9 tasks 0.00 (0) to 0.80 (8)"
    assert task_scores({"tasks/a/normalized_score": 1.0}) == "", "that is the score itself"


def running_trial(folder: Any, tag: str = "0") -> Any:
    return SimpleNamespace(
        experiment_tag=tag,
        trial_id=tag,
        status="RUNNING",
        stopping_criterion={"num_env_steps_sampled_lifetime": 100},
        storage=SimpleNamespace(trial_fs_path=str(folder)),
    )


def test_plain_lines_name_each_phase_once_and_then_ever_more_rarely(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    printer, trial = ProgressPrinter(), running_trial(tmp_path)
    printer.setup()

    def lines_at(second: float) -> list[str]:
        now[0] = 1000.0 + second
        for _ in range(3):
            printer.on_step_begin(1, [trial])
        return capsys.readouterr().out.splitlines()

    assert lines_at(0) == ["[0:00:00]  starting"]
    write_status(tmp_path, {"phase": "warm-up", "env_steps": 10, "updates": 0})
    assert lines_at(1) == ["[0:00:01]  warm-up  env steps 10 of 100  10%  updates 0"]
    assert lines_at(5) == []
    write_status(tmp_path, {"phase": "warm-up", "env_steps": 40, "updates": 0})
    (line,) = lines_at(9.5)
    assert line == "[0:00:09]  warm-up  env steps 40 of 100  40%  updates 0"
    write_status(tmp_path, {"phase": "evaluating", "detail": "1 of 4 episodes"})
    (line,) = lines_at(10)
    assert "evaluating 1 of 4 episodes" in line
    result = {"training_iteration": 1, "num_env_steps_sampled_lifetime": 50}
    printer.on_trial_result(1, [trial], trial, result)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "[0:00:10]  iter 1  env steps 50 of 100  50%"
    assert lines_at(11) == []


def test_a_terminal_shows_what_goes_on_between_results(tmp_path: Any) -> None:
    printer = ProgressPrinter()
    assert printer.lines() == ["[0:00:00]  waiting for resources"]
    trials = [running_trial(tmp_path, "0_lr=1"), running_trial(tmp_path / "none", "1_lr=2")]
    printer.on_trial_result(1, trials, trials[0], {"num_env_steps_sampled_lifetime": 20})
    write_status(tmp_path, {"phase": "training", "env_steps": 50, "updates": 5})
    assert printer.lines() == [
        "[0:00:00]  trial 0 lr=1  training  env steps 50 of 100  50%  updates 5",
        "[0:00:00]  trial 1 lr=2  starting",
    ]


def test_a_real_run_on_a_terminal_redraws_one_line_through_all_phases(tmp_path: Any) -> None:
    file = tmp_path / "tiny.py"
    file.write_text(
        TINY.format(iteration=60)
        + "config.evaluation(evaluation_interval=1, evaluation_duration=1)\n"
    )
    terminal, output = os.openpty()
    options = ["--local-dir", str(tmp_path), "--stop", '{"num_env_steps_sampled_lifetime": 120}']
    process = TrainProcess(file, *options, output=output)
    os.close(output)
    shown = b""
    try:
        while True:
            shown += os.read(terminal, 1 << 16)
    except OSError:  # EIO: the other end is closed
        os.close(terminal)
    assert process.process.wait() == 0
    text = shown.decode()
    drawn = re.findall(r"\[\d:\d\d:\d\d\]  (.*?)\s*(?:\r|\n|\x1b|$)", text)
    assert text.index("Starting Ray ...") < text.index("[0:00:0")
    phases = [line.split("  ")[0] for line in drawn]
    assert {"waiting for resources", "starting"} & set(phases)
    assert len(drawn) > len(set(drawn)) > 3, "redrawn"
    assert "env steps 120 of 120  100%" in drawn[-1]
    assert "Checkpoint:" in text


def test_a_real_run_notes_its_phases(tmp_path: Any, ray_cluster: None) -> None:
    noted: list[str] = []
    config = tiny_config([scripted_task(5), scripted_task(10)])
    config.evaluation(evaluation_interval=1, evaluation_duration=1)
    algo = config.build_algo()
    algo.phases = SimpleNamespace(report=lambda phase, **counts: noted.append(phase))
    algo.train()
    algo.stop()
    seen = list(dict.fromkeys(noted))
    assert seen == ["warm-up", "first update", "training", "evaluating"]


def test_progress_of_an_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    episodes = {"dmc:walker-run": 2, "dmc:walker-walk": 2}
    first = PlayProgress({"dmc:walker-run": 0, "dmc:walker-walk": 0}, episodes, 50)
    second = PlayProgress({"dmc:walker-run": 1, "dmc:walker-walk": 0}, episodes, 100)
    assert format_progress(second) == "1 of 4 episodes, decision 100  run 1/2  walk 0/2"
    with EvaluationProgress() as progress:
        for state in (first, first, second):
            progress.update(state)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f"[0:00:00]  {format_progress(state)}" for state in (first, second)
    ]


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
