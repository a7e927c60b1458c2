"""CPU time of an update and its parts by `reanalyze_ratio`, at the sizes of `ezm_dmc.py`.

python benchmarks/reanalyze.py --rounds 15

One pinned core, one thread, CPU time, all ratios and collection in turn.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from sizes import default_suite
from timing import interleaved, pin

from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner
from rllib_ezm.algorithm.learner import EZMTorchLearner
from rllib_ezm.replay import EpisodeChunk, MultiTaskReplayBuffer

RATIOS = (1.0, 0.25, 0.06)


def batch_of(learner: EZMTorchLearner) -> dict[str, torch.Tensor]:
    """Segments of random episodes."""
    tasks, settings = learner.config.get_task_set(), learner.config
    buffer = MultiTaskReplayBuffer(
        num_tasks=tasks.num_tasks,
        capacity_per_task=1001,
        obs_dim=tasks.obs_dim,
        action_dim=tasks.action_dim,
        unroll_steps=settings.unroll_steps,
        td_steps=settings.td_steps,
        seed=0,
    )
    rng = np.random.default_rng(0)
    for task in range(tasks.num_tasks):
        actions = rng.uniform(-1, 1, (500, tasks.action_dim))
        buffer.add(
            EpisodeChunk(
                task_id=task,
                episode_id="random",
                start=0,
                observations=rng.normal(size=(501, tasks.obs_dim)),
                actions=actions,
                rewards=rng.uniform(size=500),
                terminated=False,
                truncated=True,
                search_values=np.zeros(500),
                policy_means=np.zeros_like(actions),
                policy_stds=np.ones_like(actions),
            )
        )
    batch = buffer.sample(settings.train_batch_size_per_learner)
    return {name: torch.as_tensor(column) for name, column in batch.items()}


def main() -> None:
    """Prints CPU ms of each part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    core = pin()
    calls: dict[str, Callable[[], object]] = {}
    for ratio in RATIOS:
        config = default_suite().training(reanalyze_ratio=ratio)
        tasks = config.get_task_set()
        spaces = {DEFAULT_MODULE_ID: (tasks.observation_space, tasks.action_space)}
        learner = config.build_learner(spaces=spaces)
        batch = batch_of(learner)
        step = learner.gradient_step
        calls[f"update, reanalyze_ratio={ratio:g}"] = lambda s=step, b=batch: s(b)
        calls[f"targets, reanalyze_ratio={ratio:g}"] = lambda s=step, b=batch: s.targets(b)
    config = default_suite().training(num_random_steps=0)
    runner = MultiTaskEnvRunner(config=config, worker_index=0, num_workers=0)
    slots = runner.num_envs
    calls["10 decisions of each of the slots"] = lambda: runner.sample(num_timesteps=10 * slots)
    seconds = interleaved(calls, args.rounds, warmup=3)
    print(f"core {core}, {torch.backends.cpu.get_cpu_capability()}, {slots} slots")
    for name, values in seconds.items():
        print(f"{name:40} {1e3 * np.median(values):8.1f} ms")


if __name__ == "__main__":
    main()
