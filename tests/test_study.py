"""`benchmarks/study.py`: equal CPU seconds for every variant, from a command that can be killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.train_process import TINY

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import study as study_command  # noqa: E402
import warm_start  # noqa: E402
from curve_file import COLUMNS  # noqa: E402
from process_tree import CpuMeter, read_process  # noqa: E402
from study_file import Evaluation, Study, TaskScale, check_settings, load_study  # noqa: E402
from study_halving import decide, decision_at, read_decisions  # noqa: E402
from study_job import Job  # noqa: E402
from study_run import Run, write_json  # noqa: E402
from study_table import curve_rows, score_at, write_results  # noqa: E402

from rllib_ezm.cli.experiment_file import load_experiment_file  # noqa: E402
from rllib_ezm.utils.errors import UserError  # noqa: E402

STUDIES = sorted((ROOT / "benchmarks" / "studies").glob("*.py"))
NO_GPU_HERE = "('learners.num_learners=1', 'learners.num_gpus_per_learner=64')"

TINY_STUDY = f"""
from study_file import Evaluation, Study

study = Study(
    base="tiny.py",
    variants={{"plain": (), "impossible": {NO_GPU_HERE}}},
    settings=("evaluation.evaluation_interval=1",),
    seeds=(3,),
    cpu_seconds=36,
    evaluation=Evaluation(episodes=2, interval_episodes=1),
    checkpoint_minutes=0.01,
)
"""

BURN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
print(child.pid, flush=True)
while True: pass
"""


class StudyProcess:
    """The command in a process of its own."""

    def __init__(self, file: Path, out: Path) -> None:
        self.log = out.with_suffix(f".{time.monotonic_ns()}.log")
        script = str(ROOT / "benchmarks" / "study.py")
        options = ["--cores", "2", "--out", str(out), "--progress", "2", "--machine", "a test"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, script, str(file), *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, met: Any, seconds: float = 180.0) -> None:
        end = time.monotonic() + seconds
        while not met():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.2)


def test_cpu_seconds_are_those_of_the_whole_tree_and_of_orphans() -> None:
    with subprocess.Popen([sys.executable, "-c", BURN], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        try:
            meter = CpuMeter(parent.pid)
            assert meter.read() >= 0.0
            end = time.monotonic() + 60
            while (both := meter.read()) < 1.0:
                assert time.monotonic() < end
                time.sleep(0.05)
            own = [read_process(pid).cpu_s for pid in (parent.pid, child)]
            assert min(own) > 0.0
            assert both <= sum(own)
            parent.kill()
            parent.wait()
            after = meter.read()
            while meter.read() < after + 0.2:
                assert time.monotonic() < end
                time.sleep(0.05)
            assert meter.living() == [child]
        finally:
            os.kill(child, signal.SIGKILL)
            parent.kill()


def test_a_process_that_has_gone_has_no_line() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert read_process(process.pid) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {}}, "one at least"),
        ({"variants": {"a_seed0": ()}}, "without `_seed`"),
        ({"variants": {"a": "training.lr=1"}}, "lists of strings"),
        ({"seeds": (1, 1)}, "different numbers"),
        ({"cpu_seconds": None}, "needs a budget"),
        ({"cpu_seconds": 0.0}, "cpu_seconds must be positive"),
        ({"halving": (0.5, 0.5)}, "ascending fractions"),
        ({"halving": (1.0,)}, "ascending fractions"),
    ],
)
def test_a_wrong_study_is_refused(changes: dict[str, Any], message: str) -> None:
    right = {"base": "b.py", "variants": {"a": ()}, "cpu_seconds": 10.0}
    Study(**right)
    with pytest.raises(ValueError, match=message):
        Study(**{**right, **changes})


def test_settings_of_a_variant_come_last_and_tasks_first() -> None:
    study = Study(
        base="b.py",
        variants={"a": ("training.lr=1",)},
        settings=("training.lr=2",),
        tasks=("dmc:walker-run",),
        cpu_seconds=10.0,
        evaluation=Evaluation(interval_episodes=None, interval_iterations=4),
    )
    assert study.settings_of("a") == [
        "tasks=['dmc:walker-run']",
        "tasks.action_repeat=2",
        "evaluation.evaluation_interval=4",
        "training.lr=2",
        "training.lr=1",
    ]


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_the_settings_of_our_studies_are_valid(file: Path) -> None:
    study = load_study(file)
    base = (file.parent / study.base).resolve()
    scales = check_settings(base, study, list(study.variants))
    for tasks in scales.values():
        assert [task.name for task in tasks] == list(study.tasks)
        assert {task.action_repeat for task in tasks} == {2}


@pytest.mark.usefixtures("ray_cluster")
def test_a_warm_start_is_from_the_agent_of_the_same_seed(tmp_path: Path) -> None:
    before, after = (replace(s, seeds=(4,)) for s in (warm_start.BEFORE, warm_start.AFTER))
    given = SimpleNamespace(out=tmp_path, cores=1, progress=60.0, machine="this one")
    (agent,) = study_command.all_runs(before, warm_start.options_of("before", before, given))
    options = warm_start.options_of("after", after, given)
    with pytest.raises(UserError, match="before_seed4 has no whole checkpoint"):
        warm_start.runs_after(after, [agent], options)
    config = load_experiment_file(warm_start.BASE).overridden(before.settings_of("before")).config
    algorithm = config.env_runners(num_env_runners=0).build_algo()
    trial = agent.experiment / "trial"
    algorithm.save_to_path(trial / "checkpoint_000000")
    algorithm.stop()
    (trial / "params.json").write_text("{}")
    nothing, warm = warm_start.runs_after(after, [agent], options)
    assert (nothing.variant, warm.variant) == ("nothing", "warm")
    assert not any("warm_start.checkpoint" in argument for argument in nothing.train_arguments(1.0))
    arguments = " ".join(warm.train_arguments(1.0))
    assert f"warm_start.checkpoint='{trial / 'checkpoint_000000'}'" in arguments
    assert "'dmc:walker-run'" in arguments


def test_a_wrong_setting_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY.format(iteration=60))
    study = Study(base="tiny.py", variants={"a": ("training.replay_ratios=1",)}, cpu_seconds=1.0)
    with pytest.raises(UserError, match=r"training.replay_ratio\?"):
        check_settings(tmp_path / "tiny.py", study, ["a"])


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "benchmarks" / "study.py")
    command = [sys.executable, script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_test_tasks_need_frozen_settings(tmp_path: Path) -> None:
    file = str(ROOT / "benchmarks" / "studies" / "test_tasks.py")
    done = run_command(file, "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "confirm it with --frozen" in done.stderr
    assert not (tmp_path / "out").exists()


def test_list_prints_every_run(tmp_path: Path) -> None:
    file = str(ROOT / "benchmarks" / "studies" / "development_walkers.py")
    done = run_command(file, "--list", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    study = load_study(Path(file))
    for variant, settings in study.variants.items():
        assert f"{variant}: {' '.join(settings) or '(as the base)'}\n" in done.stdout
    for seed in study.seeds:
        line = f"seed {seed}: 0% done, 0 CPU s, 0 lives"
        assert done.stdout.count(line) == len(study.variants)
    assert "no variant x; there are base" in run_command(file, "--only", "x").stderr


@pytest.mark.parametrize(
    ("scores", "dropped"),
    [
        ({"a": 0.1, "b": 0.3, "c": 0.2, "d": 0.4}, ("c", "a")),
        ({"a": 0.1, "b": 0.3, "c": 0.2}, ("a",)),
        ({"a": None, "b": -3.0}, ("a",)),
        ({"a": 0.2, "b": 0.2}, ("b",)),
        ({"a": 0.2}, ()),
    ],
)
def test_the_worse_half_is_dropped(
    scores: dict[str, float | None], dropped: tuple[str, ...]
) -> None:
    assert decide(0.5, scores).dropped == dropped


STUDY = Study(
    base="b.py",
    variants={"a": (), "b": ("x.y=1",)},
    cpu_seconds=100.0,
    halving=(0.5,),
    seeds=(0, 1),
)
TASKS = (TaskScale("one", 2), TaskScale("two", 4))


def made_run(out: Path, variant: str, seed: int, scores: dict[float, float]) -> Run:
    """A run as its files say it is: evaluated after some fractions, with these mean scores."""
    run = Run(STUDY, Path("b.py"), out, variant, seed, TASKS)
    run.prepare()
    for fraction, score in scores.items():
        run.log_cpu(100 * fraction, 200 * fraction)
        tasks = {"one": {"return": 10.0, "score": score - 0.1}}
        tasks["two"] = {"return": 20.0, "score": score + 0.1}
        evaluation = {
            "fraction": fraction,
            "cpu_s": 100 * fraction,
            "wall_s": 200 * fraction,
            "episodes": 10,
            "score": score,
            "updates": 7,
            "decisions": {"one": 1000 * fraction, "two": 1000 * fraction},
            "tasks": tasks,
        }
        write_json(run.folder / f"evaluation_{fraction:g}.json", evaluation)
        run.state.trained = run.state.evaluated = fraction
    run.state.lives = 1
    run.keep_state()
    return run


def test_a_decision_is_kept_whatever_the_scores_become(tmp_path: Path) -> None:
    runs = [made_run(tmp_path, v, s, {0.5: x}) for v, s, x in [("a", 0, 0.1), ("b", 0, 0.2)]]
    assert decision_at(tmp_path, runs, 0.5).dropped == ("a",)
    made_run(tmp_path, "a", 0, {0.5: 0.9})
    assert decision_at(tmp_path, runs, 0.5).dropped == ("a",)
    (decision,) = read_decisions(tmp_path)
    assert decision.scores == {"a": 0.1, "b": 0.2}


def test_the_table_has_every_run_with_failed_and_dropped_ones(tmp_path: Path) -> None:
    runs = [
        made_run(tmp_path, "a", 0, {0.5: 0.2, 1.0: 0.4}),
        made_run(tmp_path, "a", 1, {0.5: 0.3, 1.0: 0.6}),
        made_run(tmp_path, "b", 0, {0.5: 0.1}),
        made_run(tmp_path, "b", 1, {}),
    ]
    runs[3].state.failure = "boom"
    decision = decision_at(tmp_path, runs, 0.5)
    write_results(tmp_path, STUDY, runs, [decision], title="T", machine="a test")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [row["status"] for row in summary["runs"]] == [
        "done",
        "done",
        "dropped after 50%",
        "failed: boom",
    ]
    (a, b) = summary["variants"]
    assert (a["seeds"], b["seeds"]) == (2, 0)
    assert a["IQM"].startswith("0.500 [")  # 0.3, 0.5, 0.5, 0.7 without the outer two
    table = (tmp_path / "table.md").read_text()
    assert "| a | 0.250 (2) | 0.250 (2) | 0.500 (2) | 0.500 (2) |" in table
    assert "| b | 0.100 (1) | 0.100 (1) |  |  |" in table
    with (tmp_path / "curves.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 2 * (2 + 2 + 1)
    assert rows[0]["env_steps"] == "1000"  # 500 decisions of 2
    assert rows[2]["env_steps"] == "2000"  # 500 decisions of 4
    assert (rows[1]["cpu_s"], rows[1]["wall_s"]) == ("100.0", "200.0")


def point(cpu_s: float, score: float, *, of_checkpoint: bool = False) -> dict[str, Any]:
    return {"task": "t", "cpu_s": cpu_s, "score": score, "of_checkpoint": of_checkpoint}


def test_scores_are_interpolated_between_the_evaluations_around_a_budget() -> None:
    rows = [point(10, 0.0), point(30, 0.4)]
    assert score_at(rows, "cpu_s", 20) == pytest.approx(0.2)
    assert score_at(rows, "cpu_s", 31) == pytest.approx(0.4)  # within 5 %
    assert score_at(rows, "cpu_s", 32) is None
    assert score_at(rows, "cpu_s", 9) is None
    assert score_at([*rows, point(20.5, 0.9, of_checkpoint=True)], "cpu_s", 20) == 0.9
    assert score_at([], "cpu_s", 20) is None


def test_a_run_does_not_go_on_with_other_settings(tmp_path: Path) -> None:
    made_run(tmp_path, "b", 0, {})
    other = Study(base="b.py", variants={"b": ("x.y=2",)}, cpu_seconds=100.0)
    with pytest.raises(UserError, match=r"was begun with .*x.y=1.*another name"):
        Run(other, Path("b.py"), tmp_path, "b", 0, TASKS).prepare()
    longer = replace(STUDY, cpu_seconds=200.0)
    with pytest.raises(UserError, match=r"'cpu_seconds': 100.0.*'cpu_seconds': 200.0"):
        Run(longer, Path("b.py"), tmp_path, "b", 0, TASKS).prepare()


class EndedLife:
    """What `Job` asks of a life that has ended."""

    def __init__(self, cpu_s: float, *, told: bool = False) -> None:
        self.cpu_s, self.was_told_to_stop = cpu_s, told

    def last_line(self) -> str:
        return "the last line"


@pytest.mark.parametrize(
    ("code", "life", "kills", "failure"),
    [
        (143, EndedLife(10.0, told=True), 0, ""),  # the study ends: saved
        (-9, EndedLife(10.0, told=True), 0, ""),  # too slow to save
        (143, EndedLife(10.0), 1, ""),  # the machine goes down
        (-9, EndedLife(10.0), 1, ""),  # out of memory
        (1, EndedLife(10.0), 0, "the last line"),
        (1, EndedLife(50.0, told=True), 0, "the last line"),  # it could not save
        (143, EndedLife(50.0, told=True), 0, "the budget ended before the first checkpoint"),
    ],
)
def test_only_an_end_of_its_own_is_a_failure(
    tmp_path: Path, code: int, life: EndedLife, kills: int, failure: str
) -> None:
    job = Job(made_run(tmp_path, "a", 0, {}), 0.5)
    job._end_of_training(code, life)
    assert (job.run.state.kills, job.run.state.failure) == (kills, failure)
    assert job.run.state.trained == 0.0


def test_what_is_killed_again_and_again_has_failed(tmp_path: Path) -> None:
    job = Job(made_run(tmp_path, "a", 0, {}), 0.5)
    for _ in range(4):
        assert job.run.state.failure == ""
        job._end_of_training(-9, EndedLife(10.0))
    assert job.run.state.failure == "ended by signals 4 times, last: the last line"


@pytest.mark.slow
def test_after_kill_9_the_same_command_ends_the_study(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY.format(iteration=60))
    file, out = tmp_path / "tiny_study.py", tmp_path / "out"
    file.write_text(TINY_STUDY)
    run = Run(
        load_study(file), tmp_path / "tiny.py", out, "plain", 3, [TaskScale("gym:Pendulum-v1", 1)]
    )
    first = StudyProcess(file, out)
    try:
        first.wait_until(lambda: run.newest_checkpoint() is not None)
    finally:
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    used_before = run.used[0]
    pid, ticks, *_ = json.loads((run.folder / "process.json").read_text())
    assert used_before > 1.0
    second = StudyProcess(file, out)
    try:
        assert second.process.wait(timeout=180) == 1, second.log.read_text()  # one run has failed
    finally:
        second.process.kill()
    output = second.log.read_text()
    earlier = read_process(pid)
    assert earlier is None or earlier.key != (pid, ticks)
    state = json.loads((run.folder / "state.json").read_text())
    assert (state["trained"], state["evaluated"], state["lives"], state["failure"]) == (1, 1, 2, "")
    assert 36.0 <= run.used[0] < 72.0
    seconds = [cpu for _, cpu, _ in run.cpu_log()]
    assert seconds == sorted(seconds)
    impossible = json.loads((out / "runs" / "impossible_seed3" / "state.json").read_text())
    assert "GPU" in impossible["failure"]
    assert f"impossible_seed3: FAILED: {impossible['failure']}" in first.log.read_text() + output
    rows = list(csv.DictReader((out / "curves.csv").open()))
    assert {row["variant"] for row in rows} == {"plain"}
    assert rows[-1]["episodes"] == "2"
    decisions = [int(row["decisions"]) for row in rows]
    assert decisions == sorted(decisions)
    assert int(rows[-1]["updates"]) > 0
    log = (run.folder / "commands.log").read_text()
    assert log.count("Going on from") == 1
    assert curve_rows(run) != []
    assert study_command.TABLE_FILE in {path.name for path in out.iterdir()}
