"""Time and bytes of the replay buffer in a checkpoint, the first one and one that follows.

A buffer of rings with the sizes of the Hard tasks is filled, saved with its checksums as in a
checkpoint, gets some new transitions, and is saved again: as a whole, and beside the first one.

    python benchmarks/checkpoint.py [--transitions 1000000] [--new 30000] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from replay import NUM_TASKS, make_buffer, make_chunk

from rllib_ezm.replay import EpisodeChunk, MultiTaskReplayBuffer
from rllib_ezm.replay.storage import load_state, save_state
from rllib_ezm.utils.checkpoint_folder import verify, write_manifest

EPISODE = 1000


def add_episodes(buffer: MultiTaskReplayBuffer, per_task: int, name: str) -> None:
    for task in range(NUM_TASKS):
        chunk = make_chunk(task, name, EPISODE)
        for number in range(per_task):
            buffer.add(EpisodeChunk(**{**chunk.__dict__, "episode_id": f"{name}{number}"}))


def measure_save(
    buffer: MultiTaskReplayBuffer, folder: Path, base: Path | None
) -> dict[str, float]:
    """Seconds on the clock and of the CPU, and bytes written to the disk."""
    clock, cpu = time.perf_counter(), time.process_time()
    written = save_state(buffer.get_state(copy=False), folder / "replay", base)
    write_manifest(folder)
    return {
        "seconds": time.perf_counter() - clock,
        "cpu_seconds": time.process_time() - cpu,
        "megabytes": written / 1e6,
    }


def measure_restore(buffer: MultiTaskReplayBuffer, folder: Path) -> dict[str, float]:
    clock, cpu = time.perf_counter(), time.process_time()
    verify(folder)
    buffer.set_state(load_state(folder / "replay"))
    return {
        "seconds": time.perf_counter() - clock,
        "cpu_seconds": time.process_time() - cpu,
        "megabytes": 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transitions", type=int, default=1_000_000)
    parser.add_argument("--new", type=int, default=30_000, help="transitions between the two")
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON as well")
    options = parser.parse_args()
    old = max(options.transitions // NUM_TASKS // EPISODE, 1)
    new = max(options.new // NUM_TASKS // EPISODE, 1)
    buffer = make_buffer(NUM_TASKS, (old + new) * (EPISODE + 1))
    add_episodes(buffer, old, "old")
    print(
        f"{len(buffer):,} transitions of {NUM_TASKS} tasks, then {new * EPISODE * NUM_TASKS:,} new"
    )
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        first, beside, whole = (Path(name) / part for part in ("first", "beside", "whole"))
        for folder in (first, beside, whole):
            folder.mkdir()
        rows["first"] = measure_save(buffer, first, None)
        add_episodes(buffer, new, "new")
        rows["next, as a whole"] = measure_save(buffer, whole, None)
        rows["next, beside the first"] = measure_save(buffer, beside, first / "replay")
        rows["restore"] = measure_restore(buffer, beside)
    for label, row in rows.items():
        print(
            f"{label:24} {row['seconds']:7.2f} s  {row['cpu_seconds']:7.2f} s of the CPU  "
            f"{row['megabytes']:8.1f} MB written"
        )
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
