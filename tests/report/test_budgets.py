from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.tune_results import write_trial

from rllib_ezm.report.budgets import within_budget
from rllib_ezm.report.runs import find_trials
from rllib_ezm.utils.errors import UserError


def test_evaluations_up_to_the_budget_are_kept(tmp_path: Path) -> None:
    write_trial(tmp_path / "e" / "t", {"dmc:a": [1.0, 2.0, 3.0], "dmc:b": [4.0, 5.0, 6.0]})
    trials, _ = find_trials([tmp_path])
    for budget, returns in ((200, [1]), (399, [1, 2]), (400, [1, 2]), (10_000, [1, 2, 3])):
        (trial,), dropped = within_budget(trials, budget)
        assert dropped == []
        np.testing.assert_array_equal(trial.curves["dmc:a"].returns, returns)
        assert len(trial.curves["dmc:b"].env_steps) == len(returns)
    np.testing.assert_array_equal(trials[0].curves["dmc:a"].returns, [1, 2, 3])


def test_where_no_evaluation_is_near_the_budget_one_is_interpolated(tmp_path: Path) -> None:
    write_trial(tmp_path / "e" / "t", {"dmc:a": [1.0, 2.0, 4.0], "dmc:b": [4.0, 8.0, 9.0]})
    trials, _ = find_trials([tmp_path])
    (trial,), _ = within_budget(trials, 450)
    np.testing.assert_allclose(trial.curves["dmc:a"].env_steps, [200, 400, 450])
    np.testing.assert_allclose(trial.curves["dmc:a"].returns, [1, 2, 2.5])
    np.testing.assert_allclose(trial.curves["dmc:b"].returns, [4, 8, 8.25])
    updates = trials[0].curves["dmc:a"].updates
    assert trial.curves["dmc:a"].updates[-1] == updates[1] + (updates[2] - updates[1]) / 4
    np.testing.assert_array_equal(within_budget(trials, 421)[0][0].curves["dmc:a"].returns, [1, 2])


def test_an_evaluation_counts_by_the_mean_of_its_tasks(tmp_path: Path) -> None:
    folder = write_trial(tmp_path / "e" / "t", {"dmc:a": [1.0, 2.0], "dmc:b": [3.0, 4.0]})
    results = [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]
    for result in results:
        result["tasks"]["dmc:a"]["env_steps"] += 100
        result["tasks"]["dmc:b"]["env_steps"] -= 100
    lines = "".join(json.dumps(result) + "\n" for result in results)
    (folder / "result.json").write_text(lines)
    (trial,), _ = within_budget(find_trials([tmp_path])[0], 400)
    assert {task: list(curve.returns) for task, curve in trial.curves.items()} == {
        "dmc:a": [1, 2],
        "dmc:b": [3, 4],
    }


def test_trials_that_begin_later_are_dropped_and_if_all_do_it_is_an_error(tmp_path: Path) -> None:
    write_trial(tmp_path / "early" / "t", {"dmc:a": [1.0]})
    write_trial(tmp_path / "late" / "t", {"dmc:a": [2.0]}, steps=1000)
    trials, _ = find_trials([tmp_path])
    kept, dropped = within_budget(trials, 200)
    assert ([t.experiment for t in kept], [t.experiment for t in dropped]) == (["early"], ["late"])
    with pytest.raises(UserError, match="by 100 env steps per task; the first one was at 200"):
        within_budget(trials, 100)
