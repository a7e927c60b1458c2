"""Replay speed: MultiTaskReplayBuffer beside RLlib's EpisodeReplayBuffer, on the same data.

The two are timed in turn, round by round, in one process, so that a busy machine hits both.

    python benchmarks/replay.py [--json]
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer
from timing import interleaved, pin, quartiles

from rllib_ezm.replay import EpisodeChunk, MultiTaskReplayBuffer

OBS_DIM, ACTION_DIM, NUM_TASKS = 151, 61, 14
UNROLL_STEPS, TD_STEPS = 5, 5
SEGMENT_STATES = UNROLL_STEPS + TD_STEPS + 1
SMALL, LARGE = 1_000, 100_000


def make_chunk(task: int, name: str, length: int) -> EpisodeChunk:
    """A finished episode of random numbers."""
    rng = np.random.default_rng([task, length])
    actions = rng.uniform(-1, 1, (length, ACTION_DIM)).astype(np.float32)
    return EpisodeChunk(
        task_id=task,
        episode_id=name,
        start=0,
        observations=rng.standard_normal((length + 1, OBS_DIM), np.float32),
        actions=actions,
        rewards=rng.standard_normal(length, np.float32),
        terminated=False,
        truncated=True,
        search_values=np.zeros(length, np.float32),
        policy_means=actions,
        policy_stds=np.zeros_like(actions),
    )


def make_episode(chunk: EpisodeChunk) -> SingleAgentEpisode:
    """The same episode for RLlib, in numpy form as its env runners deliver it."""
    episode = SingleAgentEpisode(
        id_=f"{chunk.task_id}-{chunk.episode_id}",
        observations=list(chunk.observations),
        actions=list(chunk.actions),
        rewards=chunk.rewards.tolist(),
        truncated=True,
        len_lookback_buffer=0,
    )
    return episode.to_numpy()


def make_buffer(num_tasks: int, capacity: int) -> MultiTaskReplayBuffer:
    return MultiTaskReplayBuffer(
        num_tasks=num_tasks,
        capacity_per_task=capacity,
        obs_dim=OBS_DIM,
        action_dim=ACTION_DIM,
        unroll_steps=UNROLL_STEPS,
        td_steps=TD_STEPS,
        seed=0,
    )


def filled(num_tasks: int, capacity: int) -> MultiTaskReplayBuffer:
    """A buffer whose rings are full and have unequal priorities."""
    buffer = make_buffer(num_tasks, capacity)
    for task in range(num_tasks):
        chunk = make_chunk(task, "fill", 999)
        for number in range(-(-capacity // 1000)):
            buffer.add(EpisodeChunk(**{**chunk.__dict__, "episode_id": f"fill{number}"}))
    rng = np.random.default_rng(0)
    for _ in range(capacity // 1000):
        batch = buffer.sample(1000)
        buffer.update_priorities(batch["task_ids"], batch["index"], rng.exponential(size=1000))
    return buffer


def measure_sampling(batch_size: int, steps_per_task: int, rounds: int) -> dict[str, np.ndarray]:
    """Seconds per batch of segments from the same episodes, ours and RLlib's."""
    ours = make_buffer(NUM_TASKS, steps_per_task + steps_per_task // 1000)
    theirs = EpisodeReplayBuffer(capacity=NUM_TASKS * steps_per_task)
    for task in range(NUM_TASKS):
        for number in range(steps_per_task // 1000):
            chunk = make_chunk(task, f"episode{number}", 1000)
            ours.add(chunk)
            theirs.add(make_episode(chunk))

    def update() -> None:
        batch = ours.sample(batch_size)
        ours.update_priorities(batch["task_ids"], batch["index"], np.abs(batch["rewards"][:, 0]))

    return interleaved(
        {
            "ours": lambda: ours.sample(batch_size),
            "ours_with_update": update,
            "rllib": lambda: theirs.sample(batch_size_B=batch_size, batch_length_T=SEGMENT_STATES),
        },
        rounds,
    )


def measure_capacity(batch_size: int, rounds: int) -> dict[str, np.ndarray]:
    """Seconds per batch from one full ring of SMALL and of LARGE observations."""
    small, large = filled(1, SMALL), filled(1, LARGE)
    calls = {"small": small, "large": large}
    times = interleaved(
        {name: (lambda b=buffer: b.sample(batch_size)) for name, buffer in calls.items()}, rounds
    )
    # The same draw without the copy of the rows, whose cost is the memory's and not the tree's.
    draws = {
        f"{name}_draw": (
            lambda b=buffer: b._draw(np.zeros(batch_size, np.int64), np.array([batch_size]))
        )
        for name, buffer in calls.items()
    }
    return {**times, **interleaved(draws, rounds)}


def measure_adding(rounds: int) -> dict[str, np.ndarray]:
    """Seconds per step of adding whole episodes and 1-step and 50-step chunks."""
    ours, theirs = make_buffer(1, 20_000), EpisodeReplayBuffer(capacity=20_000)
    whole = make_chunk(0, "whole", 1000)
    counter = iter(range(10**9))

    def add_chunks(length: int) -> None:
        name = f"e{next(counter)}"
        for begin in range(0, 1000, length):
            rows, last = slice(begin, begin + length), begin + length == 1000
            ours.add(
                EpisodeChunk(
                    task_id=0,
                    episode_id=name,
                    start=begin,
                    observations=whole.observations[begin : begin + length + 1],
                    actions=whole.actions[rows],
                    rewards=whole.rewards[rows],
                    terminated=False,
                    truncated=last,
                    search_values=whole.search_values[rows],
                    policy_means=whole.policy_means[rows],
                    policy_stds=whole.policy_stds[rows],
                )
            )

    def add_rllib() -> None:
        episode = episodes.pop()
        theirs.add(episode)

    episodes = [
        make_episode(EpisodeChunk(**{**whole.__dict__, "episode_id": f"r{i}"}))
        for i in range(rounds + 1)
    ]
    times = interleaved(
        {
            "ours_1000": lambda: add_chunks(1000),
            "ours_50": lambda: add_chunks(50),
            "ours_1": lambda: add_chunks(1),
            "rllib_1000": add_rllib,
        },
        rounds,
    )
    return {name: values / 1000 for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--steps-per-task", type=int, default=3000, help="a multiple of 1000")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON as well")
    args = parser.parse_args()
    pin()

    sampling = measure_sampling(args.batch_size, args.steps_per_task, args.rounds)
    capacity = measure_capacity(args.batch_size, args.rounds)
    adding = measure_adding(args.rounds)
    report = {
        "sample_ms": {name: quartiles(1e3 * values) for name, values in sampling.items()},
        "capacity_ms": {name: quartiles(1e3 * values) for name, values in capacity.items()},
        "add_us_per_step": {name: quartiles(1e6 * values) for name, values in adding.items()},
        "segments_per_s": {
            name: quartiles(args.batch_size / values) for name, values in sampling.items()
        },
        "ratio": quartiles(sampling["rllib"] / sampling["ours"]),
        "add_ratio": quartiles(adding["rllib_1000"] / adding["ours_1000"]),
        "capacity_growth": quartiles(capacity["large"] / capacity["small"]),
        "draw_growth": quartiles(capacity["large_draw"] / capacity["small_draw"]),
    }
    print(
        f"{args.batch_size} segments of {SEGMENT_STATES} states, {NUM_TASKS} tasks, D={OBS_DIM}, "
        f"A={ACTION_DIM}, {args.steps_per_task} steps per task; CPU time, median (quartiles) of "
        f"{args.rounds} interleaved rounds"
    )
    for group, rows in report.items():
        for name, row in {"": rows}.items() if "median" in rows else rows.items():
            label = f"{group} {name}".strip()
            print(f"{label:34} {row['median']:12.3f}  ({row['q25']:.3f} .. {row['q75']:.3f})")
    if args.json:
        print(json.dumps(report))
    print(
        f"segments_per_s={report['segments_per_s']['ours']['median']:.0f} "
        f"ratio={report['ratio']['median']:.1f} "
        f"add_us_per_step={report['add_us_per_step']['ours_50']['median']:.2f} "
        f"capacity_growth={report['capacity_growth']['median']:.2f}"
    )


if __name__ == "__main__":
    main()
