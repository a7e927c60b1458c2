"""Evaluation curves of finished runs as one CSV and one plot.

    python benchmarks/learning_curves.py --out results/quickstart ~/ray_results/quickstart_seed*

Each argument is an experiment folder of `rllib train file`; its trials are the curves. The plot
needs the extra `report` (matplotlib).
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

FIELDS = ("experiment", "seed", "task", "seconds", "env_steps", "updates", "episode_return_mean")


def read_curves(experiment: Path) -> list[dict]:
    """One row per evaluation and task; RLlib repeats an evaluation, so repeats are skipped."""
    rows = []
    for file in sorted(experiment.glob("*/result.json")):
        last = None
        for line in file.read_text(encoding="utf-8").splitlines():
            result = json.loads(line)
            evaluated = result.get("evaluation", {}).get("tasks", {})
            returns = {
                task: values.get("episode_return_mean") for task, values in evaluated.items()
            }
            if not returns or None in returns.values() or returns == last:
                continue
            last = returns
            rows += [
                {
                    "experiment": experiment.name,
                    "seed": result["config"]["seed"],
                    "task": task,
                    "seconds": round(result["time_total_s"]),
                    "env_steps": int(result["num_env_steps_sampled_lifetime"]),
                    "updates": result.get("num_updates_lifetime"),
                    "episode_return_mean": round(value, 1),
                }
                for task, value in returns.items()
            ]
    return rows


def plot(rows: list[dict], references: list[dict], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks = sorted({row["task"] for row in rows})
    figure, axes = plt.subplots(1, len(tasks), figsize=(4.5 * len(tasks), 3.5), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        curves: dict[tuple, list[dict]] = {}
        for row in rows:
            if row["task"] == task:
                curves.setdefault((row["experiment"], row["seed"]), []).append(row)
        for (experiment, _), curve in sorted(curves.items()):
            minutes = [row["seconds"] / 60 for row in curve]
            axis.plot(minutes, [row["episode_return_mean"] for row in curve], label=experiment)
        for reference in references:
            if reference["task"] == task:
                style = {"random": ":", "do_nothing": "--"}[reference["policy"]]
                level = float(reference["return_mean"])
                axis.axhline(level, color="grey", linestyle=style, label=reference["policy"])
        axis.set(title=task, xlabel="minutes", ylabel="evaluation return", ylim=(0, 1000))
    axes[0][-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out.with_suffix(".png"), dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    parser.add_argument("--references", type=Path, default=Path("results/reference_returns.csv"))
    options = parser.parse_args()
    rows = [row for experiment in options.experiments for row in read_curves(experiment)]
    with options.out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with options.references.open(encoding="utf-8") as file:
        plot(rows, list(csv.DictReader(file)), options.out)


if __name__ == "__main__":
    main()
