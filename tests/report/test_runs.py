from __future__ import annotations

import json
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


def test_tasks_given_by_name_are_resolved(tmp_path: Path) -> None:
    folder = write_trial(tmp_path / "e" / "t", {"dmc:walker-run": [1.0]})
    params = json.loads((folder / "params.json").read_text())
    params["env_config"]["tasks"] = [{"name": "dmc:walker-run", "action_repeat": 4}]
    (folder / "params.json").write_text(json.dumps(params))
    (trial,), _ = find_trials([tmp_path])
    assert trial.tasks["dmc:walker-run"] == TaskInfo(0.0, 1000.0, 4)


def test_the_text_of_a_task_in_params_json_is_that_of_a_task_spec() -> None:
    """`spec_text` and the parser both follow the dataclass: a new field must not break them."""
    from rllib_ezm.report.runs import _task_infos
    from rllib_ezm.tasks import resolve_task

    spec = resolve_task("dmc:walker-run", action_repeat=3, random_score=-1.5, description="x, y=1")
    assert _task_infos([str(spec)]) == {"dmc:walker-run": TaskInfo(-1.5, 1000.0, 3)}


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
