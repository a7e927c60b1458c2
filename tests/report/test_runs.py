from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.tune_results import write_trial

from rllib_ezm.report.runs import TaskInfo, find_trials
from rllib_ezm.utils.errors import UserError


def test_a_trial_is_read_once_per_evaluation(tmp_path: Path) -> None:
    write_trial(tmp_path / "exp" / "trial", {"dmc:a": [10.0, 30.0], "dmc:b": [0.0, 0.0]}, seed=3)
    (trial,), unevaluated = find_trials([tmp_path / "exp"])
    assert unevaluated == []
    assert (trial.experiment, trial.name, trial.seed) == ("exp", "trial", 3)
    assert trial.tasks["dmc:a"] == TaskInfo(0.0, 100.0, 2)
    curve = trial.curves["dmc:a"]
    np.testing.assert_array_equal(curve.env_steps, [200, 400])
    np.testing.assert_array_equal(curve.updates, [10, 20])
    np.testing.assert_array_equal(curve.seconds, [20, 40])
    np.testing.assert_array_equal(curve.returns, [10, 30])
    np.testing.assert_allclose(curve.scores, [0.1, 0.3])
    # Two evaluations with equal returns are two evaluations.
    np.testing.assert_array_equal(trial.curves["dmc:b"].returns, [0, 0])


def test_other_algorithms_count_all_env_steps_and_no_updates(tmp_path: Path) -> None:
    write_trial(tmp_path / "e" / "t", {"dmc:a": [1.0], "dmc:b": [2.0]}, per_task=False)
    (trial,), _ = find_trials([tmp_path])
    np.testing.assert_array_equal(trial.curves["dmc:b"].env_steps, [200])
    assert np.isnan(trial.curves["dmc:b"].updates).all()


def test_a_directory_may_be_a_trial_an_experiment_or_a_folder_of_experiments(
    tmp_path: Path,
) -> None:
    trial = write_trial(tmp_path / "runs" / "e1" / "t", {"dmc:a": [1.0]})
    write_trial(tmp_path / "runs" / "e2" / "t", {"dmc:a": [1.0]}, seed=1)
    for directories, expected in (
        ([trial], ["e1"]),
        ([tmp_path / "runs" / "e1"], ["e1"]),
        ([tmp_path / "runs"], ["e1", "e2"]),
        ([tmp_path / "runs", trial.parent], ["e1", "e2"]),
    ):
        assert [trial.experiment for trial in find_trials(directories)[0]] == expected


def test_a_resumed_trial_replaces_what_it_repeats_and_a_running_one_is_cut(tmp_path: Path) -> None:
    folder = write_trial(tmp_path / "e" / "t", {"dmc:a": [1.0, 2.0]})
    other = write_trial(tmp_path / "f" / "t", {"dmc:a": [1.0, 7.0, 8.0]})
    lines = (other / "result.json").read_text().splitlines(keepends=True)
    with (folder / "result.json").open("a") as file:
        file.writelines(lines[2:])
        file.write('{"training_iteration": 8, "eval')
    (trial,), _ = find_trials([tmp_path / "e"])
    np.testing.assert_array_equal(trial.curves["dmc:a"].returns, [1, 7, 8])


def test_the_tasks_are_those_of_the_evaluations(tmp_path: Path) -> None:
    write_trial(tmp_path / "e" / "t", {"dmc:b": [1.0], "dmc:a": [1.0]})
    (trial,), _ = find_trials([tmp_path])
    assert list(trial.tasks) == list(trial.curves) == ["dmc:b", "dmc:a"]
    assert trial.config["env_config/tasks"] == '"dmc:b+dmc:a"'


def test_results_of_an_earlier_version_are_refused(tmp_path: Path) -> None:
    folder = write_trial(tmp_path / "e" / "t", {"dmc:a": [1.0]})
    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(text.replace('"success_score": 100.0, ', ""))
    with pytest.raises(UserError, match=r"dmc:a lack success_score\. It was written by an earlier"):
        find_trials([tmp_path])


def test_metrics_of_the_environments_are_read(tmp_path: Path) -> None:
    info = {"dmc:a": {"success": [0.0, None, 1.0], "height": [None, 2.0, 3.0]}}
    write_trial(tmp_path / "e" / "t", {"dmc:a": [1.0, 2.0, 3.0], "dmc:b": [0.0] * 3}, info=info)
    (trial,), _ = find_trials([tmp_path])
    curve = trial.curves["dmc:a"]
    np.testing.assert_array_equal(curve.info["success"], [0, np.nan, 1])
    np.testing.assert_array_equal(curve.info["height"], [np.nan, 2, 3])
    assert trial.curves["dmc:b"].info == {}
    np.testing.assert_array_equal(curve.at(np.array([2])).info["height"], [3])
    longer = curve.followed_by([1.0] * 5 + [7.0, 8.0])
    assert (longer.info["success"][-1], longer.info["height"][-1]) == (7.0, 8.0)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_trials([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"looked for result\.json, \*/result\.json"):
        find_trials([tmp_path])
    folder = write_trial(tmp_path / "e" / "t", {})
    with pytest.raises(UserError, match="evaluation/tasks/NAME/episode_return_mean"):
        find_trials([tmp_path])
    write_trial(tmp_path / "e" / "u", {"dmc:a": [1.0]})
    trials, unevaluated = find_trials([tmp_path])
    assert ([trial.name for trial in trials], unevaluated) == (["u"], ["e/t"])
    (folder / "params.json").unlink()
    with pytest.raises(UserError, match=r"no params\.json"):
        find_trials([tmp_path])
