"""Draws what `benchmarks/soak.py` recorded: memory, buffer, kills and score over time.

python benchmarks/soak_plot.py results/soak/soak.csv results/soak/soak.png
"""

from __future__ import annotations

import csv
import sys

import matplotlib.pyplot as plt

PANELS = (
    ("memory [MB]", ("driver_mb", "runners_mb")),
    ("transitions in the buffer", ("buffer",)),
    ("count", ("kills", "restarts")),
    ("normalized score, training", ("score",)),
)


def main() -> None:
    source, target = sys.argv[1:]
    with open(source) as file:
        rows = list(csv.DictReader(file))
    minutes = [float(row["minutes"]) for row in rows]
    figure, axes = plt.subplots(1, len(PANELS), figsize=(16, 3.5), layout="constrained")
    for ax, (label, columns) in zip(axes, PANELS, strict=True):
        for column in columns:
            ax.plot(minutes, [float(row[column]) for row in rows], label=column)
        ax.set(xlabel="minutes", ylabel=label, ylim=(0, None))
        if len(columns) > 1:
            ax.legend()
    figure.savefig(target, dpi=100)


if __name__ == "__main__":
    main()
