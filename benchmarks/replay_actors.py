"""Replay rings in actors beside the same rings in this process: adding, sampling, new priorities.

The two take turns, round by round; milliseconds on the clock and of this process's CPU, which is
what the trainer's own thread pays.

    python benchmarks/replay_actors.py [--actors 2] [--batch-size 512]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import ray
from replay import (
    ACTION_DIM,
    NUM_TASKS,
    OBS_DIM,
    TD_STEPS,
    UNROLL_STEPS,
    make_buffer,
    make_chunk,
)
from timing import quartiles

from rllib_ezm.execution.replay_actors import ReplayActors
from rllib_ezm.replay import EpisodeChunk, MultiTaskReplayBuffer

CAPACITY, CHUNK = 20_000, 10
Buffer = MultiTaskReplayBuffer | ReplayActors


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds on the clock, and of CPU."""
    clock, cpu = time.perf_counter(), time.process_time()
    call()
    return 1e3 * (time.perf_counter() - clock), 1e3 * (time.process_time() - cpu)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=30)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    buffers: dict[str, Buffer] = {
        "local": make_buffer(NUM_TASKS, CAPACITY),
        "actors": ReplayActors(
            args.actors,
            num_cpus=1,
            num_tasks=NUM_TASKS,
            seed=0,
            max_bytes=None,
            capacity_per_task=CAPACITY,
            obs_dim=OBS_DIM,
            action_dim=ACTION_DIM,
            unroll_steps=UNROLL_STEPS,
            td_steps=TD_STEPS,
        ),
    }
    for buffer in buffers.values():
        for task in range(NUM_TASKS):
            for number in range(10):
                buffer.add(make_chunk(task, f"fill{number}", 999))
        buffer.sample(args.batch_size)
    chunks = [make_chunk(task, "", CHUNK) for task in range(NUM_TASKS)]

    def add(buffer: Buffer, turn: int) -> None:
        """A fragment of every task, and until it is stored."""
        for chunk in chunks:
            buffer.add(EpisodeChunk(**{**chunk.__dict__, "episode_id": f"episode{turn}"}))
        assert len(buffer)

    def update(buffer: Buffer) -> None:
        batch = buffer.sample(args.batch_size)
        buffer.update_priorities(batch["task_ids"], batch["index"], np.abs(batch["rewards"][:, 0]))

    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for turn in range(args.rounds):
        for name, buffer in buffers.items():
            work: dict[str, Callable[[], object]] = {
                "add": lambda b=buffer, t=turn: add(b, t),
                "sample": lambda b=buffer: b.sample(args.batch_size),
                "sample and update": lambda b=buffer: update(b),
            }
            for what, call in work.items():
                times.setdefault((what, name), []).append(timed(call))
    print(f"{NUM_TASKS} tasks, {args.actors} actors, batch {args.batch_size}; ms: clock, CPU")
    for (what, name), values in times.items():
        clock, cpu = (quartiles(np.array(column)) for column in zip(*values, strict=True))
        print(
            f"{what:<20}{name:<8}{clock['q25']:8.2f}{clock['median']:8.2f}{clock['q75']:8.2f}"
            f"  {cpu['median']:8.2f}"
        )
    ratios = {
        what: float(
            np.median([x[0] for x in times[what, "actors"]])
            / np.median([x[0] for x in times[what, "local"]])
        )
        for what in ("add", "sample", "sample and update")
    }
    print("\n" + " ".join(f"{what.replace(' ', '_')}={x:.3g}" for what, x in ratios.items()))


if __name__ == "__main__":
    main()
