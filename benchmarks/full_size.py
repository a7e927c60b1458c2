"""Some full-size updates of an experiment file, without its long warm-up: do they work here?

Only the wait for the first update is shortened, and updates come one per env step of each slot;
networks, search, batch and tasks are the file's. Prints the losses of every update, the seconds per
update and the peak memory; ends with exit code 1 where a loss is not finite.

    python benchmarks/full_size.py tuned_examples/ezm_hard.py [--updates 20] [--csv FILE]
"""

from __future__ import annotations

import argparse
import csv
import math
import resource
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_ezm import EZMConfig

WARM_UP_STEPS = 50
LOSSES = tuple(
    f"{name}_loss"
    for name in ("reward", "value", "policy", "temporal_consistency", "path_consistency")
)
COLUMNS = (*LOSSES, "gradient_norm", "skipped_updates")


def shortened(config: EZMConfig) -> EZMConfig:
    """One update per iteration, after `WARM_UP_STEPS` decisions in every slot."""
    slots = config.get_task_set().num_tasks * config.env_config["envs_per_task"]
    return (
        config.copy(copy_frozen=False)
        .env_runners(num_env_runners=0, rollout_fragment_length=1)
        .training(
            replay_ratio=1 / slots,
            num_steps_sampled_before_learning_starts=WARM_UP_STEPS * slots,
            num_random_steps=WARM_UP_STEPS * slots,
        )
        .evaluation(evaluation_interval=None)
        .reporting(min_sample_timesteps_per_iteration=slots)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    config = shortened(runpy.run_path(str(options.file))["config"])
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    algorithm = config.build_algo()
    rows: list[dict[str, Any]] = []
    while len(rows) < options.updates:
        start, cpu = time.perf_counter(), time.process_time()
        result = algorithm.train()
        if result["num_updates_lifetime"] == len(rows):
            continue
        learner = result["learners"][DEFAULT_MODULE_ID]
        row = {"update": len(rows) + 1, **{name: float(learner[name]) for name in COLUMNS}}
        row["seconds"] = time.perf_counter() - start
        row["cpu_seconds"] = time.process_time() - cpu
        row["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        rows.append(row)
        print({name: round(value, 3) for name, value in row.items()}, flush=True)
    algorithm.stop()
    if options.csv is not None:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    finite = all(math.isfinite(row[name]) for row in rows for name in LOSSES)
    cpu = sorted(row["cpu_seconds"] for row in rows)[len(rows) // 2]
    print(
        f"tasks={config.get_task_set().num_tasks} updates={len(rows)} finite={finite} "
        f"cpu_seconds_per_update={cpu:.1f} peak_gb={rows[-1]['peak_gb']:.1f}"
    )
    sys.exit(0 if finite else 1)


if __name__ == "__main__":
    main()
