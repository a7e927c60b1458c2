from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from helpers.tune_results import write_trial

from rllib_ezm.cli.main import main

NEEDS_EXTRA = pytest.mark.skipif(
    importlib.util.find_spec("rliable") is None, reason="needs the extra `report`"
)
FIGURES = ("tasks", "learning_curve", "aggregates", "profile")
TASKS = ("dmc:walker-walk", "dmc:walker-run")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of `full`, one of `less` on the same tasks, one of `other` on another task."""
    for name, seed, level in (("full", 0, 60.0), ("full", 1, 80.0), ("less", 0, 40.0)):
        returns = {task: list(np.linspace(0, level, 20)) for task in TASKS}
        write_trial(tmp_path / "runs" / f"{name}_seed{seed}" / "t", returns, seed=seed)
    write_trial(tmp_path / "runs" / "other" / "t", {"dmc:hopper-hop": [1.0]})
    return tmp_path / "runs"


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@NEEDS_EXTRA
def test_report_of_a_folder_of_experiments(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--out", str(out), "--reference", "full", "--published"]
    assert main(["report", str(runs), *options]) == 0
    assert capsys.readouterr().out == f"Report: {out / 'report.md'}\n"
    for name in (*FIGURES, "improvement"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / f"{name}.svg").read_text()

    scores = {(row["task"], row["variant"]): row for row in rows(out / "scores.csv")}
    full, less = scores["dmc:walker-run", "full"], scores["dmc:walker-run", "less"]
    last = np.linspace(0, 1, 20)[-2:].mean()
    assert float(full["return_mean"]) == pytest.approx(70 * last, abs=1e-4)
    assert (full["seeds"], full["env_steps_per_task"]) == ("2", "4000")
    assert float(full["return_low"]) == pytest.approx(60 * last, abs=1e-4)
    assert (less["return_low"], less["return_high"]) == ("", "")
    assert (less["random_return"], less["success_score"]) == ("25.3", "100.0")

    measures = {(row["variant"], row["measure"]): row for row in rows(out / "aggregates.csv")}
    assert measures["less", "P(better than full)"]["value"] == "0.0"
    assert ("less", "p (differs from full)") not in measures  # one seed
    assert float(measures["less", "IQM"]["value"]) == pytest.approx(0.4 * last, abs=1e-5)

    curves = rows(out / "curves.csv")
    assert len(curves) == 3 * 20 * 2 + 1
    assert curves[0] == {
        "variant": "full",
        "experiment": "full_seed0",
        "seed": "0",
        "task": "dmc:walker-walk",
        "env_steps_per_task": "200",
        "updates": "10",
        "seconds": "20",
        "episode_return_mean": "0.0",
        "normalized_score": "0.0",
    }

    text = (out / "report.md").read_text()
    assert "return (last)" in text
    assert "| 1 seed |" in text
    assert "Not compared with `full`, because on other tasks: other." in text
    assert "EfficientZero-V2, arXiv:2403.00564" in text
    assert "Unequal budgets" not in text
    assert str(tmp_path) not in text


@NEEDS_EXTRA
def test_metrics_of_the_environments_have_a_table(tmp_path: Path) -> None:
    for seed, success in ((0, 0.2), (1, 0.6)):
        info = {TASKS[0]: {"success": [None] * 18 + [success, success]}}
        returns = {task: [50.0] * 20 for task in TASKS}
        write_trial(tmp_path / "full" / f"t{seed}", returns, seed=seed, info=info)
    write_trial(tmp_path / "less" / "t", {task: [50.0] * 20 for task in TASKS})
    out = tmp_path / "out"
    assert main(["report", str(tmp_path), "--out", str(out), "--max-env-steps", "3900"]) == 0
    (row,) = rows(out / "info.csv")
    assert (row["task"], row["variant"], row["metric"]) == (TASKS[0], "full", "success")
    assert (row["statistic"], row["seeds"], row["value"]) == ("last", "2", "0.4")
    assert (row["low"], row["high"]) == ("0.2", "0.6")
    curves = rows(out / "curves.csv")
    assert [r["info/success"] for r in curves if r["seed"] == "1"][17:20] == ["", "0.6", "0.6"]
    assert {r["info/success"] for r in curves if r["variant"] == "less"} == {""}
    text = (out / "report.md").read_text()
    assert "| task | variant | seeds | success (last) |" in text
    assert f"| {TASKS[0]} | full | 2 | 0.400 [0.200, 0.600] |" in text


@NEEDS_EXTRA
def test_variants_of_several_seeds_are_tested_against_the_reference(
    runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_trial(runs / "less_seed1" / "t", {task: [50.0] * 20 for task in TASKS}, seed=1)
    assert main(["report", str(runs), "--out", str(out), "--reference", "full"]) == 0
    measures = {(row["variant"], row["measure"]): row for row in rows(out / "aggregates.csv")}
    test = measures["less", "p (differs from full)"]
    # One of the 6 ways to part four runs in two pairs is as low; twice that.
    assert float(test["value"]) == pytest.approx(1 / 3, abs=1e-5)
    assert (test["low"], test["high"]) == ("", "")
    text = (out / "report.md").read_text()
    assert "p (differs from full) (last)" in text
    assert "three runs against three give 0.1 at least" in text


@NEEDS_EXTRA
def test_a_common_budget_cuts_curves_tables_and_names_what_it_leaves_out(
    runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_trial(runs / "late" / "t", {task: [99.0] for task in TASKS}, steps=2000)
    assert main(["report", str(runs), "--out", str(out), "--max-env-steps", "2000"]) == 0
    assert {row["env_steps_per_task"] for row in rows(out / "scores.csv")} == {"200", "2000"}
    assert max(int(row["env_steps_per_task"]) for row in rows(out / "curves.csv")) == 2000
    text = (out / "report.md").read_text()
    assert "* Left out: evaluations more than 5% after 2,000 env steps per task. " in text
    assert "* Left out, because first evaluated later: late/t." in text


@NEEDS_EXTRA
def test_best_is_named_in_every_table_and_the_grouping_is_the_users(
    runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--out", str(out), "--statistic", "best", "--group-by", "seed"]
    assert main(["report", str(runs / "full_seed0"), str(runs / "full_seed1"), *options]) == 0
    for file in ("scores.csv", "aggregates.csv"):
        assert {row["statistic"] for row in rows(out / file)} == {"best"}
        assert {row["variant"] for row in rows(out / file)} == {"seed=0", "seed=1"}
    text = (out / "report.md").read_text()
    assert "BEST single evaluation" in text
    assert "IQM (best)" in text
    assert "(last)" not in text
    for name in ("aggregates", "profile"):
        assert "(best)" in (out / f"{name}.svg").read_text()


@NEEDS_EXTRA
def test_equal_results_give_equal_files(runs: Path, tmp_path: Path) -> None:
    for out in ("one", "two"):
        assert main(["report", str(runs), "--out", str(tmp_path / out)]) == 0
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert len(files) == 4 + 2 * len(FIGURES)
    for name in files:
        one, two = ((tmp_path / out / name).read_bytes() for out in ("one", "two"))
        assert one == two, name


@NEEDS_EXTRA
def test_runs_without_all_tasks_and_unequal_budgets_are_told(runs: Path, tmp_path: Path) -> None:
    write_trial(runs / "full_seed2" / "t", {TASKS[0]: [50.0]}, seed=2)
    write_trial(runs / "less_seed1" / "t", {t: [50.0] for t in TASKS}, seed=1)
    assert main(["report", str(runs), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "`full`: no evaluation of every task for seed 2, which the aggregates leave out" in text
    assert "Unequal budgets" in text
    assert "`full` 4,000, `less` 2,100" in text
    seeds = {(r["task"], r["variant"]): r["seeds"] for r in rows(tmp_path / "out" / "scores.csv")}
    assert seeds[TASKS[0], "full"] == "3"
    assert seeds[TASKS[1], "full"] == "2"


@NEEDS_EXTRA
def test_single_tasks_make_an_aggregate_only_if_a_seed_completes_them(tmp_path: Path) -> None:
    command = ["report", str(tmp_path / "runs"), "--group-by", "num_tasks", "--out"]
    for task in TASKS:
        write_trial(tmp_path / "runs" / f"unseeded_{task[-4:]}" / "t", {task: [1.0]}, seed=None)
    assert main([*command, str(tmp_path / "none")]) == 0
    assert not (tmp_path / "none" / "aggregates.csv").exists()
    text = (tmp_path / "none" / "report.md").read_text()
    assert "no evaluation of every task for trial unseeded_-run/t, trial unseeded_walk/t" in text
    for task, level in zip(TASKS, (20.0, 40.0), strict=True):
        write_trial(tmp_path / "runs" / f"seeded_{task[-4:]}" / "t", {task: [level]}, seed=4)
    assert main([*command, str(tmp_path / "one")]) == 0
    (mean,) = (r for r in rows(tmp_path / "one/aggregates.csv") if r["measure"] == "mean")
    assert (mean["variant"], mean["seeds"], mean["value"]) == ("1 task", "1", "0.3")


@NEEDS_EXTRA
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such folder"),
        (["."], "no results of Tune in"),
        (["runs", "--reference", "ful"], "no variant 'ful'; there are: full, less, other"),
        (["runs", "--group-by", "lr"], "--group-by: no trial has a config field 'lr'"),
        (["runs", "--out", "runs/other/t/result.json"], "is a file; name a folder"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    arguments: list[str],
    message: str,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty" if arguments == ["."] else tmp_path)
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_the_extra_the_error_names_it(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["report", str(runs)]) == 2
    error = capsys.readouterr().err
    assert error.endswith("report needs matplotlib and rliable: pip install 'rllib-ezm[report]'\n")
    assert error.count("\n") == 1
