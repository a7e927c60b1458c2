"""Rows of the report's tables, and their CSV files."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rllib_ezm.report.aggregate import (
    MEASURES,
    Estimate,
    aggregate_estimate,
    permutation_p_value,
    probability_of_improvement,
    summarize,
    task_estimate,
)
from rllib_ezm.report.budgets import budget
from rllib_ezm.report.comparison import Comparison
from rllib_ezm.report.reference import POLICIES, PublishedScore, reference_returns
from rllib_ezm.report.variants import UNSET, Variant, readable

Row = dict[str, Any]


def task_rows(variants: Sequence[Variant], statistic: str) -> list[Row]:
    """A row per task and variant: returns and scores, and what simple policies return."""
    simple = reference_returns()
    rows = []
    for task in _all_tasks(variants):
        for variant in variants:
            curves = variant.curves(task)
            if not curves:
                continue
            info = variant.info(task)
            row: Row = {"task": task, "variant": variant.name, "statistic": statistic}
            returns = task_estimate(np.array([summarize(c.returns, statistic) for c in curves]))
            scores = task_estimate(np.array([summarize(c.scores, statistic) for c in curves]))
            row |= {"seeds": returns.runs, "env_steps_per_task": round(budget(curves))}
            row |= _columns("return", returns) | _columns("score", scores)
            row |= {f"{policy}_return": simple.get((task, policy)) for policy in POLICIES}
            row |= {"random_score": info.random_score, "success_score": info.success_score}
            rows.append(row)
    return rows


def info_rows(variants: Sequence[Variant], statistic: str) -> list[Row]:
    """A row per task, variant and metric of the environment's `info` that was reported."""
    rows = []
    for task in _all_tasks(variants):
        for variant in variants:
            curves = variant.curves(task)
            for metric in dict.fromkeys(name for curve in curves for name in curve.info):
                columns = [curve.info[metric] for curve in curves if metric in curve.info]
                reported = [column[np.isfinite(column)] for column in columns]
                runs = np.array(
                    [summarize(values, statistic) for values in reported if len(values)]
                )
                if len(runs) == 0:
                    continue
                row: Row = {"task": task, "variant": variant.name, "metric": metric}
                estimate = task_estimate(runs)
                row |= {"statistic": statistic, "seeds": estimate.runs}
                rows.append(row | _columns("", estimate))
    return rows


def aggregate_rows(
    comparisons: Sequence[Comparison], statistic: str, reference: str | None
) -> list[Row]:
    """A row per set of tasks, variant and measure; with a reference, improvement over it too."""
    rows = []
    for comparison in comparisons:
        tasks = " ".join(comparison.tasks)
        for name, scores in comparison.scores.items():
            estimates = {measure: aggregate_estimate(scores, measure) for measure in MEASURES}
            if reference in comparison.scores and name != reference:
                against = comparison.scores[reference]
                better = probability_of_improvement(scores, against)
                estimates[f"P(better than {reference})"] = better
                p_value = permutation_p_value(scores, against)
                if p_value is not None:
                    estimates[f"p (differs from {reference})"] = replace(
                        better, value=p_value, interval=None
                    )
            rows += [
                {"tasks": tasks, "variant": name, "statistic": statistic, "measure": measure}
                | {"seeds": estimate.runs}
                | _columns("", estimate)
                for measure, estimate in estimates.items()
            ]
    return rows


def curve_rows(variants: Sequence[Variant]) -> list[Row]:
    """A row per evaluation and task of every run: the evidence behind all other numbers.

    Each metric of any task has a column.
    """
    curves = [curve for variant in variants for t in variant.trials for curve in t.curves.values()]
    metrics = list(dict.fromkeys(name for curve in curves for name in curve.info))
    return [
        {
            "variant": variant.name,
            "experiment": trial.experiment,
            "seed": trial.seed,
            "task": task,
            "env_steps_per_task": round(steps),
            "updates": None if math.isnan(updates) else round(updates),
            "seconds": round(seconds),
            "episode_return_mean": round(value, 2),
            "normalized_score": round(score, 5),
        }
        | {f"info/{name}": _at(curve.info.get(name), point) for name in metrics}
        for variant in variants
        for trial in variant.trials
        for task, curve in trial.curves.items()
        for point, (steps, updates, seconds, value, score) in enumerate(
            zip(*curve.columns[:5], strict=True)
        )
    ]


def run_rows(variants: Sequence[Variant]) -> list[Row]:
    """A row per run: where it comes from and how far it got."""
    rows = []
    for variant in variants:
        for trial in variant.trials:
            last = max(trial.curves.values(), key=lambda curve: curve.seconds[-1])
            rows.append(
                {
                    "variant": variant.name,
                    "experiment": trial.experiment,
                    "seed": trial.seed,
                    "tasks": len(trial.curves),
                    "evaluations": len(last.env_steps),
                    "env steps per task": f"{last.env_steps[-1]:,.0f}",
                    "updates": None if math.isnan(last.updates[-1]) else f"{last.updates[-1]:,.0f}",
                    "minutes": f"{last.seconds[-1] / 60:.0f}",
                }
            )
    return rows


def published_rows(published: Sequence[PublishedScore]) -> list[Row]:
    """A row per published return."""
    return [
        {
            "task": score.task,
            "method": score.method,
            "return": f"{score.return_mean:.0f}",
            "at": f"{score.steps:,} {score.source.unit}",
            "source": score.source.citation,
        }
        for score in published
    ]


def readable_task_rows(rows: Sequence[Row]) -> list[Row]:
    """`task_rows` with numbers and intervals as people write them."""
    return [
        {
            "task": row["task"],
            "variant": row["variant"],
            f"return ({row['statistic']})": f"{row['return_mean']:.1f}",
            "95 % interval of return": _interval(row, "return", ".1f"),
            f"score ({row['statistic']})": f"{row['score_mean']:.3f}",
            "95 % interval of score": _interval(row, "score", ".3f"),
            "seeds": row["seeds"],
            "env steps": f"{row['env_steps_per_task']:,}",
        }
        | {policy.replace("_", " "): _number(row[f"{policy}_return"], ".0f") for policy in POLICIES}
        | {"success": _number(row["success_score"], "g")}
        for row in rows
    ]


def readable_aggregate_rows(rows: Sequence[Row]) -> list[Row]:
    """`aggregate_rows` of one set of tasks: a row per variant, a column per measure."""
    table: dict[str, Row] = {}
    for row in rows:
        line = table.setdefault(row["variant"], {"variant": row["variant"], "seeds": row["seeds"]})
        interval = f" {_interval(row, '', '.3f')}" if row["low"] is not None else ""
        line[f"{row['measure']} ({row['statistic']})"] = f"{row['value']:.3f}{interval}"
    return list(table.values())


def readable_info_rows(rows: Sequence[Row]) -> list[Row]:
    """`info_rows` with a column per metric."""
    table: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = row["task"], row["variant"]
        line = table.setdefault(key, {"task": key[0], "variant": key[1], "seeds": row["seeds"]})
        interval = f" {_interval(row, '', '.3f')}" if row["low"] is not None else ""
        line[f"{row['metric']} ({row['statistic']})"] = f"{row['value']:.3f}{interval}"
    return list(table.values())


def setting_rows(variants: Sequence[Variant]) -> list[Row]:
    """A row per config field that any two trials disagree on, seeds aside; a column per variant."""
    everything = Variant("", [trial for variant in variants for trial in variant.trials])
    return [
        {"setting": field}
        | {
            variant.name: " or ".join(
                dict.fromkeys(readable(t.config.get(field, UNSET)) for t in variant.trials)
            )
            for variant in variants
        }
        for field in everything.differing_fields()
    ]


def setting_notes(variants: Sequence[Variant]) -> list[str]:
    """Sentences on variants whose trials disagree on a config field, seeds aside."""
    notes = []
    for variant in variants:
        fields = variant.differing_fields()
        if fields:
            listing = "; ".join(
                f"`{field}`: {', '.join(readable(value) for value in values)}"
                for field, values in fields.items()
            )
            notes.append(f"`{variant.name}`: its runs differ in {listing}.")
    return notes


def write_csv(file: Path, rows: Sequence[Row]) -> None:
    """Write the rows with a header; None becomes an empty cell."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _at(column: np.ndarray | None, point: int) -> float | None:
    """A metric at a point of a curve; None where it was not reported."""
    if column is None or math.isnan(column[point]):
        return None
    return round(float(column[point]), 5)


def _all_tasks(variants: Sequence[Variant]) -> list[str]:
    return list(dict.fromkeys(task for variant in variants for task in variant.tasks))


def _columns(name: str, estimate: Estimate) -> Row:
    low, high = estimate.interval or (None, None)
    keys = (f"{name}_mean", f"{name}_low", f"{name}_high") if name else ("value", "low", "high")
    values = (estimate.value, low, high)
    return {
        key: None if value is None else round(value, 5)
        for key, value in zip(keys, values, strict=True)
    }


def _interval(row: Row, name: str, form: str) -> str:
    prefix = f"{name}_" if name else ""
    low, high = row[f"{prefix}low"], row[f"{prefix}high"]
    return "1 seed" if low is None else f"[{low:{form}}, {high:{form}}]"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
