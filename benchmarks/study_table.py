"""Curves of a study's runs as CSV, and its table as Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from curve_file import Row, write_rows
from study_file import Study
from study_halving import Decision
from study_run import Run, write_json

from rllib_ezm.report.aggregate import Estimate, aggregate_estimate
from rllib_ezm.report.blocks import Block, Heading, Items, Table, Text, to_markdown
from rllib_ezm.report.budgets import BUDGET_TOLERANCE
from rllib_ezm.report.runs import Curve, find_trials
from rllib_ezm.utils.errors import UserError

CURVES_FILE, TABLE_FILE, SUMMARY_FILE = "curves.csv", "table.md", "summary.json"


def curve_rows(run: Run) -> list[Row]:
    """Every evaluation of a run: those during training, and those of its checkpoints."""
    rows = [row for evaluation in run.evaluations() for row in _checkpoint_rows(run, evaluation)]
    rows += _training_rows(run)
    order = [task.name for task in run.tasks]
    return sorted(rows, key=lambda row: (order.index(row["task"]), row["cpu_s"]))


def _checkpoint_rows(run: Run, evaluation: Mapping[str, Any]) -> list[Row]:
    return [
        _row(
            run,
            task=name,
            decisions=evaluation["decisions"][name],
            updates=evaluation["updates"],
            seconds=(evaluation["cpu_s"], evaluation["wall_s"]),
            scored=(found["return"], found["score"]),
            episodes=evaluation["episodes"],
        )
        | {"of_checkpoint": True}
        for name, found in evaluation["tasks"].items()
    ]


def _training_rows(run: Run) -> list[Row]:
    trial_folder = run.trial_folder()
    if trial_folder is None:
        return []
    try:
        trials, _ = find_trials([trial_folder])
    except UserError:  # nothing was evaluated yet
        return []
    log = np.array(run.cpu_log()).reshape(-1, 3)
    stamps = _stamps(trial_folder / "result.json")
    episodes = trials[0].config.get("evaluation_duration", "")
    return [
        _row(
            run,
            task=task,
            decisions=point["decisions"],
            updates=point["updates"],
            seconds=_seconds_at(log, stamps[point["seconds"]]),
            scored=(point["return"], point["score"]),
            episodes=episodes,
        )
        for task, curve in trials[0].curves.items()
        for point in _points(curve)
    ]


def _points(curve: Curve) -> Iterable[dict[str, float]]:
    names = ("decisions", "updates", "seconds", "return", "score")
    columns = (curve.env_steps, curve.updates, curve.seconds, curve.returns, curve.scores)
    return (
        dict(zip(names, map(float, point), strict=True)) for point in zip(*columns, strict=True)
    )


def _stamps(results: Path) -> dict[float, float]:
    """`time_total_s` -> Unix time of each result."""
    stamps = {}
    for line in results.read_text().splitlines():
        try:
            result = json.loads(line)
        except ValueError:  # a killed process has not finished it
            continue
        stamps[float(result["time_total_s"])] = float(result["timestamp"])
    return stamps


def _seconds_at(log: np.ndarray, unix_time: float) -> tuple[float, float]:
    """CPU and wall-clock seconds at a moment, from the readings [P, 3]."""
    if not len(log):
        return (math.nan, math.nan)
    return tuple(float(np.interp(unix_time, log[:, 0], log[:, i])) for i in (1, 2))


def _row(
    run: Run,
    *,
    task: str,
    decisions: float,
    updates: float,
    seconds: tuple[float, float],
    scored: tuple[float, float],
    episodes: object,
) -> Row:
    repeat = {scale.name: scale.action_repeat for scale in run.tasks}[task]
    return {
        "variant": run.variant,
        "task": task,
        "seed": run.seed,
        "decisions": round(decisions),
        "env_steps": round(decisions * repeat),
        "updates": "" if math.isnan(updates) else round(updates),
        "cpu_s": round(seconds[0], 1),
        "wall_s": round(seconds[1], 1),
        "return": round(scored[0], 3),
        "score": round(scored[1], 5),
        "episodes": episodes,
        "of_checkpoint": False,
    }


def score_at(rows: Sequence[Row], axis: str, budget: float) -> float | None:
    """Mean score over the tasks of a run at a budget.

    That of a checkpoint's evaluation within 5 % of it; without one, interpolated between the
    evaluations before and after.

    Args:
        rows: The run's rows.
        axis: The column of the budget.
        budget: In the unit of the column.

    Returns:
        The score; None where a task was not evaluated both before and after the budget, except
        within 5 % of it.
    """
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row["task"], []).append(row)
    scores = [_task_score_at(of_task, axis, budget) for of_task in by_task.values()]
    found = [score for score in scores if score is not None]
    return float(np.mean(found)) if found and len(found) == len(scores) else None


def _task_score_at(rows: Sequence[Row], axis: str, budget: float) -> float | None:
    """Of one task: the evaluation of a checkpoint within 5 %, otherwise interpolated."""
    low, high = budget * (1 - BUDGET_TOLERANCE), budget * (1 + BUDGET_TOLERANCE)
    near = [row for row in rows if row["of_checkpoint"] and low <= row[axis] <= high]
    if near:
        return float(min(near, key=lambda row: abs(row[axis] - budget))["score"])
    points = {row[axis]: row["score"] for row in sorted(rows, key=lambda row: row[axis])}
    steps = np.array(list(points))
    if steps[0] > high or steps[-1] < low:
        return None
    return float(np.interp(budget, steps, list(points.values())))


def write_results(
    out: Path,
    study: Study,
    runs: Sequence[Run],
    decisions: Sequence[Decision],
    *,
    title: str,
    machine: str,
) -> None:
    """Write the curves of every run and of all, the table and its numbers.

    Args:
        out: The folder of the study.
        study: The study.
        runs: All runs that were made or are to be made.
        decisions: Of successive halving.
        title: Of the table.
        machine: What the runs ran on.
    """
    rows = {run.name: curve_rows(run) for run in runs}
    for run in runs:
        if rows[run.name]:
            write_rows(run.folder / "curve.csv", rows[run.name])
    write_rows(out / CURVES_FILE, [row for of_run in rows.values() for row in of_run])
    run_table = [_run_row(run, rows[run.name], decisions) for run in runs]
    variants = _variant_rows(study, runs)
    blocks: list[Block] = [
        Heading(title, 1),
        Text(_introduction(study, machine)),
        Heading("Every run"),
        Table(run_table),
        Heading("Variants after the whole budget"),
        Text(
            "IQM and mean of the normalized scores over tasks and seeds, with stratified "
            "95 % bootstrap intervals; one seed has none. A failed or dropped run is not in them."
        ),
        Table(variants),
        Heading("Variants at equal budgets"),
        Text(
            "Mean score over tasks and seeds (their number behind it): of the evaluation of a "
            "checkpoint within 5 %, otherwise interpolated between the evaluations before and "
            "after; empty where there are none. Decisions are those per task."
        ),
        Table(_budget_rows(study, runs, rows)),
        Heading("Successive halving"),
        Items([_sentence(decision) for decision in decisions]),
    ]
    (out / TABLE_FILE).write_text(to_markdown(blocks), encoding="utf-8")
    write_json(out / SUMMARY_FILE, {"runs": run_table, "variants": variants})


def _introduction(study: Study, machine: str) -> str:
    budgets = []
    if study.cpu_seconds is not None:
        budgets.append(f"{study.cpu_seconds:,.0f} CPU seconds")
    if study.decisions is not None:
        budgets.append(f"{study.decisions:,} decisions per task")
    return (
        f"Base: `{Path(study.base).name}`. Budget of a run: {' or '.join(budgets)}. CPU seconds "
        "are user and system seconds of all processes of a run over all of its lives, evaluations "
        f"during training included. Final evaluation: {study.evaluation.episodes} episodes per "
        f"task, seed {study.evaluation.seed}, outside the budget. Machine: {machine}."
    )


def _status(run: Run, decisions: Sequence[Decision]) -> str:
    if run.state.failure:
        return f"failed: {run.state.failure}"
    if run.state.evaluated >= 1.0:
        return "done"
    for decision in decisions:
        if run.variant in decision.dropped:
            return f"dropped after {decision.fraction:.0%}"
    return "unfinished" if run.state.lives else "not begun"


def _run_row(run: Run, rows: Sequence[Row], decisions: Sequence[Decision]) -> Row:
    """A row with the last evaluation of each task."""
    cpu_s, wall_s = run.used
    position = run.position()
    evaluations = run.evaluations()
    last = evaluations[-1] if evaluations else None
    row: Row = {
        "variant": run.variant,
        "seed": run.seed,
        "status": _status(run, decisions),
        "decisions": round(float(np.mean(list(position["decisions"].values())))),
        "updates": position["updates"],
        "CPU s": round(cpu_s),
        "wall s": round(wall_s),
        "lives": run.state.lives,
        "commit": " ".join(run.state.commits),
    }
    for task in run.tasks:
        mine = [r for r in rows if r["task"] == task.name]
        returned = last["tasks"][task.name]["return"] if last else None
        if returned is None and mine:
            returned = mine[-1]["return"]
        row[task.name] = None if returned is None else f"{returned:.0f}"
    row["score"] = f"{last['score']:.3f}" if last else None
    return row


def _variant_rows(study: Study, runs: Sequence[Run]) -> list[Row]:
    table = []
    for variant in dict.fromkeys(run.variant for run in runs):
        mine = [run for run in runs if run.variant == variant]
        finals = [f for run in mine if not run.state.failure and (f := run.evaluation_at(1.0))]
        row: Row = {"variant": variant, "settings": " ".join(study.variants[variant]) or "base"}
        row["seeds"] = len(finals)
        if finals:
            scores = np.array([[t["score"] for t in final["tasks"].values()] for final in finals])
            row["IQM"] = _estimate(aggregate_estimate(scores, "IQM"))
            row["mean"] = _estimate(aggregate_estimate(scores, "mean"))
        table.append(row)
    return table


def _estimate(estimate: Estimate) -> str:
    if estimate.interval is None:
        return f"{estimate.value:.3f}"
    low, high = estimate.interval
    return f"{estimate.value:.3f} [{low:.3f}, {high:.3f}]"


def _budget_rows(study: Study, runs: Sequence[Run], rows: Mapping[str, Sequence[Row]]) -> list[Row]:
    """A row per variant, a column per budget: each rung's CPU seconds, and equal decisions there.

    Equal decisions at a rung are those of the run that had made the fewest when it got there.
    """
    budgets: list[tuple[str, str, float]] = []
    for rung in study.rungs:
        there = [e for run in runs if (e := run.evaluation_at(rung)) is not None]
        if study.cpu_seconds is not None:
            seconds = rung * study.cpu_seconds
            budgets.append((f"{seconds:,.0f} CPU s", "cpu_s", seconds))
        if there:
            fewest = min(min(e["decisions"].values()) for e in there)
            budgets.append((f"{fewest:,.0f} decisions", "decisions", fewest))
    table = []
    for variant in dict.fromkeys(run.variant for run in runs):
        row: Row = {"variant": variant}
        for label, axis, budget in budgets:
            found = [score_at(rows[r.name], axis, budget) for r in runs if r.variant == variant]
            scores = [score for score in found if score is not None]
            row[label] = f"{np.mean(scores):.3f} ({len(scores)})" if scores else None
        table.append(row)
    return table


def _sentence(decision: Decision) -> str:
    scores = ", ".join(
        f"{name} {'failed' if score is None else f'{score:.3f}'}"
        for name, score in sorted(
            decision.scores.items(), key=lambda item: -(item[1] if item[1] is not None else -9.0)
        )
    )
    dropped = ", ".join(decision.dropped) or "none"
    return f"After {decision.fraction:.0%} of the budget: {scores}. Dropped: {dropped}."
