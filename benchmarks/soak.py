"""A long run of an experiment file while an env runner is killed again and again.

After every iteration it checks that each env step that was counted went into the replay buffer,
and records the memory of all processes. The buffer is made small, to be full early: memory has to
stay flat from then on. Checkpoints are written as well, each in place of the last one.

    python benchmarks/soak.py tuned_examples/ezm_dmc.py [--minutes 120] [--kill-every 5]

Exit code 1 where the counts do not agree.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import random
import runpy
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import ray

from rllib_ezm import EZM, EZMConfig

CHECKPOINT_EVERY = 10
"""Iterations between two checkpoints."""


class Killer(threading.Thread):
    """Kills the process of a random env runner every `seconds`, whatever it is doing."""

    def __init__(self, seconds: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.pids: list[int] = []
        self.kills = 0
        self.over = threading.Event()
        self._seconds, self._random = seconds, random.Random(seed)

    def run(self) -> None:
        while not self.over.wait(self._seconds):
            pid = self._random.choice(self.pids)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.kills += 1
            print(f"killed env runner {pid}", flush=True)


def soaked(config: EZMConfig, options: argparse.Namespace) -> EZMConfig:
    return (
        config.copy(copy_frozen=False)
        .env_runners(num_env_runners=options.env_runners)
        .replay(capacity_per_task=options.capacity)
        .debugging(seed=options.seed)
    )


def runner_pids(algorithm: EZM) -> list[int]:
    return list(
        algorithm.env_runner_group.foreach_env_runner(
            lambda runner: os.getpid(), local_env_runner=False
        )
    )


def megabytes(pid: int) -> float:
    """Memory of a process that no other one shares; 0 for one that has just been killed."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1e3


def counts_agree(algorithm: EZM, result: dict[str, Any]) -> bool:
    """Counted = stored, per task; updates = due; nothing in the buffer beyond its capacity."""
    buffer, steps = algorithm.replay_buffer, algorithm.task_statistics.env_steps
    stored = [buffer.num_added(task) for task in range(len(steps))]
    return (
        stored == steps.tolist()
        and result["env_runners"]["num_env_steps_sampled_lifetime"] == sum(stored)
        and algorithm.num_updates == algorithm.num_updates_due
        and len(buffer) <= len(steps) * algorithm.config.capacity_per_task
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--kill-every", type=float, default=5.0, help="minutes")
    parser.add_argument("--env-runners", type=int, default=2)
    parser.add_argument("--capacity", type=int, default=5_000, help="observations per task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    algorithm = soaked(runpy.run_path(str(options.file))["config"], options).build_algo()
    assert isinstance(algorithm, EZM)
    killer = Killer(60 * options.kill_every, options.seed)
    killer.pids = runner_pids(algorithm)
    killer.start()
    start, agree = time.perf_counter(), True
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        while time.perf_counter() - start < 60 * options.minutes:
            result = algorithm.train()
            if result["training_iteration"] % CHECKPOINT_EVERY == 0:
                algorithm.save_to_path(Path(folder) / "checkpoint")
            killer.pids = runner_pids(algorithm) or killer.pids
            agree = agree and counts_agree(algorithm, result)
            row = {
                "minutes": round((time.perf_counter() - start) / 60, 2),
                "env_steps": algorithm.num_env_steps,
                "updates": algorithm.num_updates,
                "buffer": len(algorithm.replay_buffer),
                "gaps": algorithm.replay_buffer.num_gaps,
                "kills": killer.kills,
                "restarts": algorithm.num_env_runner_restarts,
                "driver_mb": round(megabytes(os.getpid()), 1),
                "runners_mb": round(max(megabytes(pid) for pid in killer.pids), 1),
                "score": result.get("normalized_score_mean"),
                "agree": agree,
            }
            rows.append(row)
            print(row, flush=True)
            if options.csv is not None:
                with options.csv.open("w", newline="") as file:
                    writer = csv.DictWriter(file, rows[0])
                    writer.writeheader()
                    writer.writerows(rows)
    killer.over.set()
    algorithm.stop()
    tasks = algorithm.config.get_task_set().num_tasks
    full = [row for row in rows if row["env_steps"] >= tasks * options.capacity]
    growth = full[-1]["driver_mb"] / full[len(full) // 10]["driver_mb"] - 1 if full else math.nan
    print(
        f"kills={killer.kills} restarts={rows[-1]['restarts']} env_steps={rows[-1]['env_steps']} "
        f"updates={rows[-1]['updates']} agree={agree} driver_growth_when_full={growth:.3f}"
    )
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()
