from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.tune_results import write_trial

from rllib_ezm.report.runs import GradientCosines, find_trials

pytest.importorskip("matplotlib")
pytest.importorskip("rliable")

from rllib_ezm.report.gradients import mean_line, pair_mean, stage_mean
from rllib_ezm.report.write import write_report

RETURNS = {"dmc:a": [1.0, 2.0], "dmc:b": [1.0, 2.0], "dmc:c": [1.0, 2.0]}


def test_measurements_are_read_as_symmetric_matrices(tmp_path: Path) -> None:
    write_trial(tmp_path / "e" / "t", RETURNS, gradients={"rep": [0.5, -0.25], "dyn": [0.1]})
    ((trial,), _) = find_trials([tmp_path])
    assert trial.gradients is not None
    assert trial.gradients.updates.tolist() == [10, 15, 20, 25]
    nan = np.nan
    expected = [[1.0, -0.25, nan], [-0.25, 1.0, nan], [nan, nan, 1.0]]
    np.testing.assert_array_equal(trial.gradients.cosines["rep"][1], expected)
    assert np.isnan(trial.gradients.cosines["dyn"][1, 0, 1])


def test_thirds_of_the_training_are_averaged_over_runs() -> None:
    def run(updates: list[int], values: list[float]) -> GradientCosines:
        return GradientCosines(np.array(updates), {"rep": np.reshape(values, (-1, 1, 1))})

    runs = [run([10, 20, 60, 90], [0.1, 0.3, np.nan, 0.7]), run([15, 89], [0.8, 0.3])]
    means = [stage_mean(runs, "rep", stage, 90.0).item() for stage in range(3)]
    assert means[0] == pytest.approx((0.1 + 0.3 + 0.8) / 3)
    assert np.isnan(means[1])
    assert means[2] == pytest.approx((0.7 + 0.3) / 2)


def test_curves_average_the_pairs_that_are_known_and_then_the_runs() -> None:
    nan = np.nan
    matrices = np.array(
        [
            [[1, 0.5, nan], [0.5, 1, nan], [nan, nan, 1]],
            [[1, nan, nan], [nan, 1, nan], [nan, nan, 1]],
            [[1, 0.1, 0.2], [0.1, 1, 0.6], [0.2, 0.6, 1]],
        ]
    )
    updates, mean = pair_mean(GradientCosines(np.array([10, 20, 30]), {"rep": matrices}), "rep")
    assert updates.tolist() == [10, 30]
    np.testing.assert_allclose(mean, [0.5, 0.3])
    other = np.array([20, 25, 40]), np.array([0.0, 0.2, 0.9])
    updates, mean = mean_line([(updates, mean), other])
    assert updates.tolist() == [20, 25, 30], "what both cover"
    np.testing.assert_allclose(mean, [0.2, (0.35 + 0.2) / 2, (0.3 + 0.2 + 0.7 / 3) / 2])
    assert mean_line([(np.empty(0), np.empty(0))])[0].size == 0


def test_the_report_draws_what_was_measured(tmp_path: Path) -> None:
    for name, cosine in (("full", 0.5), ("no IER", -0.5)):
        for seed in (0, 1):
            folder = tmp_path / "runs" / "e" / f"{name}{seed}"
            gradients = {"representation": [cosine] * 4, "dynamics": [0.0] * 4}
            config = {"variant": name}
            write_trial(folder, RETURNS, seed=seed, config=config, gradients=gradients)
    write_trial(tmp_path / "runs" / "e" / "p", RETURNS, config={"variant": "not probed"})
    other = {"config": {"variant": "SAC"}, "gradients": {"critic": [0.1] * 4}}
    write_trial(tmp_path / "runs" / "e" / "sac", RETURNS, **other)
    report = write_report([tmp_path / "runs"], tmp_path / "out")
    figures = {"gradients_full", "gradients_no_IER", "gradients_SAC", "gradient_curves"}
    assert {f.stem for f in (tmp_path / "out").glob("gradient*.png")} == figures
    for name in figures:
        assert f"![{name}]({name}.png)" in report.read_text()
    svg = (tmp_path / "out" / "gradients_full.svg").read_text()
    for text in ("full (2 runs)", "representation", "first third", "0.50"):
        assert f">{text}<" in svg
    curves = (tmp_path / "out" / "gradient_curves.svg").read_text()
    for module in ("representation", "dynamics", "critic"):
        assert f">{module}<" in curves
