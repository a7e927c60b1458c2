from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

metrics = pytest.importorskip("rliable.metrics", reason="needs the extra `report`")

from rllib_ezm.report.aggregate import (  # noqa: E402
    aggregate_estimate,
    bootstrap,
    iqm_curve,
    mean_curve,
    performance_profile,
    permutation_p_value,
    probability_of_improvement,
    summarize,
    task_estimate,
)
from rllib_ezm.report.runs import Curve  # noqa: E402


def curve(steps: list[float], returns: list[float]) -> Curve:
    values = np.asarray(returns, dtype=np.float64)
    nothing = np.zeros_like(values)
    return Curve(np.asarray(steps, dtype=np.float64), nothing, nothing, values, values / 100)


def test_last_is_the_mean_of_the_last_tenth_and_best_the_maximum() -> None:
    evaluations = np.arange(29.0)[::-1].copy()
    assert summarize(evaluations, "last") == 0.5  # two of 29
    assert summarize(evaluations[:9], "last") == 20.0
    assert summarize(evaluations, "best") == 28.0
    assert summarize(evaluations, "area") == evaluations.mean()


def test_aggregates_against_numbers_worked_by_hand() -> None:
    scores = np.array([[0.0, 0.4], [0.2, 0.6], [0.8, 1.0], [0.3, 1.9]])
    # Sorted: 0 .2 | .3 .4 .6 .8 | 1 1.9
    assert aggregate_estimate(scores, "IQM").value == pytest.approx(2.1 / 4)
    assert aggregate_estimate(scores, "mean").value == pytest.approx(5.2 / 8)
    # Scores above success count as success.
    assert aggregate_estimate(scores, "optimality gap").value == pytest.approx(1 - 4.3 / 8)


def test_probability_of_improvement_against_a_number_worked_by_hand() -> None:
    x = np.array([[1.0, 0.0], [3.0, 0.0]])
    y = np.array([[0.0, 0.0], [2.0, 1.0], [3.0, 2.0]])
    # Task 0: 1 beats 0; 3 beats 0 and 2 and ties with 3. Task 1: two ties.
    expected = (3.5 / 6 + 1.0 / 6) / 2
    estimate = probability_of_improvement(x, y)
    assert estimate.value == pytest.approx(expected)
    assert estimate.value == pytest.approx(metrics.probability_of_improvement(x, y))
    assert estimate.interval is not None
    assert probability_of_improvement(y, x).value == pytest.approx(1 - expected)
    with pytest.raises(ValueError, match="2 tasks against 1"):
        probability_of_improvement(x, y[:, :1])


def test_permutation_test_counts_the_partings_that_differ_as_much() -> None:
    low, high = np.array([[0.0, 0.2], [0.2, 0.2], [0.3, 0.3]]), np.array([[0.5, 0.5], [0.7, 0.5]])
    # One of the 10 ways to choose 2 of 5 means is as high; twice that.
    assert permutation_p_value(high, low) == pytest.approx(0.2)
    assert permutation_p_value(low, high) == pytest.approx(0.2)
    assert permutation_p_value(low, low) == 1.0
    # Of the 6 ways to choose 2 of 1, 2, 3, 4, two are as low as 1, 3; twice that.
    x, y = np.array([[1.0], [3.0]]), np.array([[2.0], [4.0]])
    assert permutation_p_value(x, y) == pytest.approx(4 / 6)
    assert permutation_p_value(x[:1], y) is None
    many = np.random.default_rng(0).normal(size=(2, 12, 3))
    assert 0.05 < permutation_p_value(*many) < 1  # too many partings: at random
    assert permutation_p_value(many[0], many[1] + 5) == pytest.approx(2 / 10_001)  # least


def test_profile_is_the_share_above_each_threshold() -> None:
    band = performance_profile(np.array([[0.1, 0.5], [0.9, 0.5]]), np.array([0.0, 0.1, 0.5, 1.0]))
    np.testing.assert_allclose(band.value, [1.0, 0.75, 0.25, 0.0])
    assert band.interval is not None
    np.testing.assert_allclose(band.interval[:, 0], [1.0, 1.0])
    # Only task 0 varies between runs: its half of the share is 0, 1/2 or 1.
    np.testing.assert_allclose(band.interval[:, 2], [0.0, 0.5])


matrices = st.tuples(st.integers(2, 5), st.integers(1, 3)).flatmap(
    lambda shape: st.lists(
        st.floats(-2, 2, width=32), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]
    ).map(lambda values: np.array(values).reshape(shape))
)


@settings(max_examples=25, deadline=None)
@given(matrices)
def test_interval_contains_the_mean_and_lies_within_the_scores(scores: np.ndarray) -> None:
    estimate = aggregate_estimate(scores, "mean")
    assert estimate.interval is not None
    low, high = estimate.interval
    assert low - 1e-9 <= estimate.value <= high + 1e-9
    assert scores.min(axis=0).mean() - 1e-9 <= low
    assert high <= scores.max(axis=0).mean() + 1e-9


def test_each_task_resamples_its_own_runs() -> None:
    """Tasks far apart but without spread between runs leave no uncertainty."""
    scores = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    assert aggregate_estimate(scores, "mean").interval == (0.5, 0.5)


def test_equal_numbers_give_equal_intervals() -> None:
    scores = np.random.default_rng(0).random((3, 2))
    assert aggregate_estimate(scores, "IQM") == aggregate_estimate(scores, "IQM")


def test_one_seed_has_no_interval() -> None:
    one, two = np.array([[0.2, 0.4]]), np.array([[0.1, 0.1], [0.2, 0.2]])
    for measure in ("IQM", "mean", "optimality gap"):
        assert aggregate_estimate(one, measure).interval is None
    assert task_estimate(one[:, 0]).interval is None
    assert probability_of_improvement(one, two).interval is None
    assert performance_profile(one, np.array([0.0])).interval is None
    assert bootstrap(one, lambda samples: samples.mean(axis=(-2, -1))) is None
    band = mean_curve([curve([1, 2], [3, 4])])
    assert band is not None
    assert band.interval is None


def test_mean_curve_interpolates_where_all_runs_have_been() -> None:
    band = mean_curve([curve([0, 10, 20], [0, 10, 20]), curve([5, 15, 25], [30, 30, 30])])
    assert band is not None
    np.testing.assert_allclose(band.x, [5, 12.5, 20])
    np.testing.assert_allclose(band.value, [17.5, 21.25, 25])
    assert band.interval is not None
    np.testing.assert_allclose(band.interval, [[5, 12.5, 20], [30, 30, 30]])
    assert mean_curve([curve([0, 1], [0, 0]), curve([2, 3], [0, 0])]) is None


def test_iqm_curve_is_rliables_iqm_at_every_point() -> None:
    rng = np.random.default_rng(0)
    returns = rng.random((3, 4, 5)) * 100  # T R P
    steps = [1.0, 2.0, 3.0, 4.0, 5.0]
    band = iqm_curve([[curve(steps, run) for run in task.tolist()] for task in returns])
    assert band is not None
    expected = [metrics.aggregate_iqm(returns[..., point].T / 100) for point in range(5)]
    np.testing.assert_allclose(band.value, expected)
    assert band.interval is not None
    assert (band.interval[0] <= band.value).all()
    assert (band.value <= band.interval[1]).all()
