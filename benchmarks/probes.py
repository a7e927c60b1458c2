"""Cost of the probes: one measurement of each against one update, and its share of the updates.

The learner of an experiment file (ezm_dmc.py by default) on random transitions, without
environments. A probe and an update take turns on one pinned core and are compared by CPU time.

    python benchmarks/probes.py [FILE] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from timing import interleaved, pin, quartiles

from rllib_ezm.callbacks import (
    DEFAULT_INTERVAL,
    GradientSimilarity,
    ModelErrorProbe,
    Probe,
    measure,
)
from rllib_ezm.config import EZMConfig
from rllib_ezm.experiment_file import load_experiment_file, running_as_script
from rllib_ezm.replay import EpisodeChunk, MultiTaskReplayBuffer

EXAMPLE = Path(__file__).parents[1] / "tuned_examples" / "ezm_dmc.py"
EPISODES, LENGTH = 20, 100


def random_replay(config: EZMConfig) -> MultiTaskReplayBuffer:
    tasks = config.get_task_set()
    buffer = MultiTaskReplayBuffer(
        num_tasks=tasks.num_tasks,
        capacity_per_task=2 * EPISODES * LENGTH,
        obs_dim=tasks.obs_dim,
        action_dim=tasks.action_dim,
        unroll_steps=config.unroll_steps,
        td_steps=config.td_steps,
        seed=0,
    )
    rng = np.random.default_rng(0)
    for task in range(tasks.num_tasks):
        for episode in range(EPISODES):
            actions = rng.uniform(-1.0, 1.0, size=(LENGTH, tasks.action_dim))
            chunk = EpisodeChunk(
                task_id=task,
                episode_id=str(episode),
                start=0,
                observations=rng.normal(size=(LENGTH + 1, tasks.obs_dim)) * tasks.obs_mask[task],
                actions=actions * tasks.action_mask[task],
                rewards=rng.uniform(size=LENGTH),
                terminated=False,
                truncated=True,
                search_values=np.zeros(LENGTH),
                search_actions=np.zeros_like(actions),
            )
            buffer.add(chunk)
    return buffer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=EXAMPLE)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", type=Path, help="also write every figure here")
    args = parser.parse_args()
    core = pin()
    torch.manual_seed(0)
    with running_as_script(args.file):
        config = load_experiment_file(args.file).config
    assert isinstance(config, EZMConfig), f"{args.file} is not for EZM"
    tasks, size = config.get_task_set(), config.train_batch_size_per_learner
    buffer = random_replay(config)
    spaces = {DEFAULT_MODULE_ID: (tasks.observation_space, tasks.action_space)}
    learner = config.build_learner(spaces=spaces)

    def update() -> None:
        batch = MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(buffer.sample(size))}, size)
        learner.update(batch=batch, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 0})

    def one(probe: type[Probe]) -> Callable[[], object]:
        rng = np.random.default_rng(0)
        return lambda: measure(learner, probe=probe, batch=buffer.peek(size, rng), seed=0)

    probes = {probe.name: one(probe) for probe in (GradientSimilarity, ModelErrorProbe)}
    seconds = interleaved({"update": update, **probes}, args.rounds)
    print(f"{args.file.name}: T={tasks.num_tasks} B={size}, core {core}, {args.rounds} rounds")
    for name, values in seconds.items():
        q = quartiles(1e3 * values)
        print(f"{name:<18}{q['q25']:9.1f} {q['median']:9.1f} {q['q75']:9.1f} ms")
    keys = {name: float(np.median(seconds[name] / seconds["update"])) for name in probes}
    share = sum(keys.values()) / DEFAULT_INTERVAL
    if args.json:
        report = {name: quartiles(values) for name, values in seconds.items()}
        args.json.write_text(json.dumps({"keys": keys, "seconds": report}, indent=1))
    print("\n" + " ".join(f"{key}={value:.3g}" for key, value in keys.items()), end=" ")
    print(f"share_of_updates_at_{DEFAULT_INTERVAL}={share:.2%}")


if __name__ == "__main__":
    main()
