"""Cost of the probes: one measurement of each against one update, and its share of the updates.

The learner of an experiment file (ezm_dmc.py by default; or of SAC with its probe) on random
transitions, without environments. A probe and an update take turns on one pinned core and are
compared by CPU time.

    python benchmarks/probes.py [FILE] [--rounds N] [--json FILE]
    python benchmarks/probes.py tuned_examples/gradient_similarity_sac.py
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner import Learner
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from timing import interleaved, pin, quartiles

from rllib_ezm.algorithm.callbacks import (
    DEFAULT_INTERVAL,
    GradientSimilarity,
    ModelErrorProbe,
    Probe,
    measure,
)
from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.baselines.gradient_similarity import GradientSimilaritySACLearner
from rllib_ezm.cli.experiment_file import load_experiment_file, running_as_script
from rllib_ezm.replay import EpisodeChunk, MultiTaskReplayBuffer
from rllib_ezm.tasks import task_set

Call = Callable[[], object]

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
                policy_means=np.zeros_like(actions),
                policy_stds=np.zeros_like(actions),
            )
            buffer.add(chunk)
    return buffer


def calls_of_ezm(config: EZMConfig) -> tuple[Call, dict[str, Call]]:
    """An update, and one measurement of each probe by its name."""
    tasks, size = config.get_task_set(), config.train_batch_size_per_learner
    buffer = random_replay(config)
    spaces = {DEFAULT_MODULE_ID: (tasks.observation_space, tasks.action_space)}
    learner = config.build_learner(spaces=spaces)

    def one(probe: type[Probe]) -> Call:
        rng = np.random.default_rng(0)
        return lambda: measure(learner, probe=probe, batch=buffer.peek(size, rng), seed=0)

    probes = {probe.name: one(probe) for probe in (GradientSimilarity, ModelErrorProbe)}
    return lambda: update(learner, buffer.sample(size), size), probes


def calls_of_sac(config: SACConfig) -> tuple[Call, dict[str, Call]]:
    """The same of SAC's learner, on one batch: RLlib's replay buffer is not counted."""
    tasks, size = task_set(config.env_config["tasks"]), config.train_batch_size_per_learner
    spaces = (gym.spaces.flatten_space(tasks.observation_space), tasks.action_space)
    learner = config.build_learner(spaces={DEFAULT_MODULE_ID: spaces})
    rng = np.random.default_rng(0)
    rows, ones = np.arange(size), np.ones(size, dtype=np.float32)
    task_ids = np.eye(tasks.num_tasks, dtype=np.float32)[rows % tasks.num_tasks]

    def observations() -> np.ndarray:
        rest = rng.normal(size=(size, spaces[0].shape[0] - tasks.num_tasks))
        return np.concatenate([rest.astype(np.float32), task_ids], axis=1)

    batch = {
        Columns.OBS: observations(),
        Columns.NEXT_OBS: observations(),
        Columns.ACTIONS: rng.uniform(-1, 1, (size, *spaces[1].shape)).astype(np.float32),
        Columns.REWARDS: rng.uniform(size=size).astype(np.float32),
        Columns.TERMINATEDS: rows < 0,
        "weights": ones,
        "n_step": ones,
    }
    tensors = {name: torch.from_numpy(column) for name, column in batch.items()}
    measured = {"gradient_cosine": lambda: learner.measure(tensors)}
    return lambda: update(learner, batch, size), measured


def update(learner: Learner, batch: dict[str, np.ndarray], size: int) -> None:
    whole = MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, size)
    learner.update(batch=whole, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 0})


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
    if isinstance(config, EZMConfig):
        update_once, probes = calls_of_ezm(config)
    else:
        assert config.learner_class is GradientSimilaritySACLearner, f"{args.file} has no probe"
        update_once, probes = calls_of_sac(config)
    seconds = interleaved({"update": update_once, **probes}, args.rounds)
    size = config.train_batch_size_per_learner
    print(f"{args.file.name}: B={size}, core {core}, {args.rounds} rounds")
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
