from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from rllib_ezm.algorithm.evaluation_report import EvaluationReport, TaskResult, bootstrap_interval


def task(name: str, scores: list[float]) -> TaskResult:
    return TaskResult(name, [1000 * s for s in scores], [500] * len(scores), scores)


def printed(report: EvaluationReport) -> str:
    screen = io.StringIO()
    Console(file=screen, width=120).print(report.to_rich_table())
    return screen.getvalue()


def test_task_means_match_hand_worked_values() -> None:
    result = TaskResult("dmc:walker-run", [100.0, 300.0], [400, 600], [0.1, 0.3])
    assert result.episodes == 2
    assert result.return_mean == pytest.approx(200.0)
    assert result.return_std == pytest.approx(100.0)
    assert result.length_mean == pytest.approx(500.0)
    assert result.normalized_score_mean == pytest.approx(0.2)


def test_every_task_counts_the_same_whatever_its_number_of_episodes() -> None:
    report = EvaluationReport([task("a", [1.0] * 9), task("b", [0.0])])
    assert report.normalized_score_mean == pytest.approx(0.5)


def test_the_interquartile_mean_leaves_out_the_extreme_quarters_of_the_tasks() -> None:
    scores = {"a": 9.0, "b": 0.5, "c": 0.7, "d": -3.0}
    report = EvaluationReport([task(name, [score]) for name, score in scores.items()])
    assert report.normalized_score_iqm == pytest.approx(0.6)


def test_the_protocol_is_named() -> None:
    report = EvaluationReport([task("a", [1.0])], protocol="released")
    assert report.to_dict()["protocol"] == "released"
    assert "protocol: released" in printed(report)


@pytest.mark.parametrize(
    ("returns", "lengths", "scores"),
    [([], [], []), ([1.0], [1, 2], [0.1]), ([1.0, 2.0], [1, 2], [0.1]), ([math.nan], [1], [0.1])],
)
def test_a_task_without_consistent_finite_episodes_is_refused(
    returns: list[float], lengths: list[int], scores: list[float]
) -> None:
    with pytest.raises(ValueError, match="walk"):
        TaskResult("walk", returns, lengths, scores)


@pytest.mark.parametrize("tasks", [[], [task("a", [0.1]), task("a", [0.2])]])
def test_a_report_without_tasks_or_with_a_task_twice_is_refused(tasks: list[TaskResult]) -> None:
    with pytest.raises(ValueError, match="each only once"):
        EvaluationReport(tasks)


def test_interval_of_one_sample_matches_the_normal_approximation() -> None:
    sample = np.random.default_rng(1).normal(0.5, 0.2, size=400)
    interval = bootstrap_interval([sample.tolist()])
    assert interval is not None
    half = 1.96 * sample.std() / math.sqrt(len(sample))
    assert interval == pytest.approx((sample.mean() - half, sample.mean() + half), abs=0.1 * half)


def test_interval_resamples_inside_tasks_only() -> None:
    # No spread inside any task: the spread between tasks must not widen the interval.
    interval = bootstrap_interval([[0.0, 0.0], [1.0, 1.0, 1.0]])
    assert interval == pytest.approx((0.5, 0.5))


def test_interval_is_unknown_where_any_task_has_one_episode() -> None:
    assert bootstrap_interval([[0.3]]) is None
    assert bootstrap_interval([[0.1, 0.2], [0.3]]) is None


def test_interval_is_reproducible_and_depends_on_the_seed() -> None:
    samples = [[0.1, 0.4, 0.9, 0.3, 0.77]]
    few = {"num_resamples": 50}
    assert bootstrap_interval(samples, **few) == bootstrap_interval(samples, **few)
    assert bootstrap_interval(samples, **few) != bootstrap_interval(samples, **few, seed=1)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-2, 2, allow_subnormal=False), min_size=2, max_size=6),
        min_size=1,
        max_size=4,
    )
)
def test_interval_encloses_the_middle_of_the_samples(samples: list[list[float]]) -> None:
    interval = bootstrap_interval(samples, num_resamples=200)
    assert interval is not None
    low, high = interval
    lowest = np.mean([min(sample) for sample in samples])
    highest = np.mean([max(sample) for sample in samples])
    assert lowest - 1e-9 <= low <= high <= highest + 1e-9


def test_table_shows_every_task_the_mean_and_unknown_intervals() -> None:
    text = printed(EvaluationReport([task("dmc:walker-run", [0.25]), task("dmc:x", [0.75])]))
    walker = next(line for line in text.splitlines() if "dmc:walker-run" in line)
    assert "250.0" in walker
    assert "±" not in walker  # one episode has no spread
    assert "0.250" in walker
    assert "n/a" in walker
    assert "0.500" in next(line for line in text.splitlines() if "mean of 2 tasks" in line)


def test_table_shows_spread_and_intervals() -> None:
    text = printed(EvaluationReport([task("a", [0.5, 0.5])]))
    assert "500.0 ± 0.0" in text
    assert text.count("[0.500, 0.500]") == 2


def test_metrics_have_a_table_and_every_episode_in_the_dict() -> None:
    first = TaskResult("a", [1.0] * 2, [5] * 2, [0.0] * 2, info={"success": [1.0, None]})
    other = TaskResult("b", [1.0] * 2, [5] * 2, [0.0] * 2, info={"height": [None, None]})
    report = EvaluationReport([first, other])
    screen = io.StringIO()
    Console(file=screen, width=80).print(report.to_metrics_table())
    rows = [line.strip("│").split("│") for line in screen.getvalue().splitlines() if "│" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["a", "success", "1.000", "1"],
        ["b", "height", "n/a", "0"],
    ]
    assert EvaluationReport([task("a", [0.5])]).to_metrics_table() is None
    read = json.loads(json.dumps(report.to_dict()))
    assert read["tasks"][0]["info"] == {"success": {"mean": 1.0, "values": [1.0, None]}}
    assert read["tasks"][1]["info"] == {"height": {"mean": None, "values": [None, None]}}
    with pytest.raises(ValueError, match="1 values of 'x' for its episodes"):
        TaskResult("a", [1.0] * 2, [5] * 2, [0.0] * 2, info={"x": [1.0]})


def test_dict_is_json_with_every_episode() -> None:
    returns = [np.float32(1.5), np.float32(2.5)]
    lengths = [np.int64(3), np.int64(4)]
    report = EvaluationReport([TaskResult("a", returns, lengths, [0.0, 1.0])])
    read = json.loads(json.dumps(report.to_dict()))
    assert read["normalized_score_mean"] == pytest.approx(0.5)
    assert read["tasks"][0]["returns"] == [1.5, 2.5]
    assert read["tasks"][0]["lengths"] == [3, 4]
    assert read["normalized_score_interval"] == pytest.approx([0.0, 1.0])
