"""A seeded training as exact numbers: losses, priorities and checksums of the weights.

`python -m helpers.trajectory OUT.json` writes them, one entry per case. With the arithmetic pinned
by `PINNED`, two commits on one machine can be compared bit for bit. The committed `trajectory.json`
was written when the improved policy became two moments. Until then it was that of `d72cad0`, before
the package was divided into rooms, up to rounding and to the terms of the policy loss that no
parameter moves; and but for the case "stored_targets", which now means something else.
"""

from __future__ import annotations

import copy
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from helpers.tiny import fill_replay, scripted_task, spaces, tiny_config
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rllib_ezm import EZMConfig

PINNED = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX512F,-FMA,-FMA4",
    "PYTHONHASHSEED": "0",
}
"""Environment of the process: instructions that every x86-64 machine has, one thread."""

UPDATES = 6
NOT_RECORDED = (
    "stored_targets",
    "seconds",
    "module_to_env",
    "connector",
    "num_",
    "diff_",
    "weights_seq_no",
)


def paper(config: EZMConfig) -> EZMConfig:
    return config


def distribution(config: EZMConfig) -> EZMConfig:
    return config.training(
        policy_loss="distribution", replayed_candidate=True, value_mixing="search", grad_clip=None
    ).search(use_gumbel_noise=True, root_prior="policy", value_reduction="mean")


def stored_targets(config: EZMConfig) -> EZMConfig:
    return config.training(
        reanalyze_ratio=0.5,
        value_mixing="age",
        value_mixing_age=30,
        value_mixing_start=3,
        entropy_coeff=0.01,
        squashed_entropy=True,
        target_period=2,
        target_tau=0.1,
        weight_decay=0.0,
    )


def schedule(config: EZMConfig) -> EZMConfig:
    return config.training(value_mixing="td", lr=[[0, 1e-3], [100, 1e-4]], target_tau=0.5)


CASES: dict[str, Callable[[EZMConfig], EZMConfig]] = {
    "paper": paper,
    "distribution": distribution,
    "stored_targets": stored_targets,
    "schedule": schedule,
    "skipped": paper,
}


def updates(name: str) -> dict[str, Any]:
    """Metrics of each of a few updates of a learner, and the weights' checksum after them."""
    config = tiny_config([scripted_task(5, 2, 1), scripted_task(6, 3, 2)]).training(lr=3e-3)
    config = CASES[name](config)
    config.validate()
    torch.manual_seed(0)
    learner = config.build_learner(spaces=spaces(config.get_task_set()))
    replay = fill_replay(config, length=7, episodes=20)
    recorded: dict[str, Any] = {"updates": []}
    for index in range(UPDATES):
        batch = replay.sample(12)
        if name == "skipped" and index == 2:
            batch["rewards"][3, 1] = np.nan
        result = learner.update(
            batch=MultiAgentBatch(
                {DEFAULT_MODULE_ID: SampleBatch(copy.deepcopy(batch))}, env_steps=12
            ),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 20 * index},
        )[DEFAULT_MODULE_ID]
        recorded["updates"].append(
            {
                key: exact(result[key].peek())
                for key in sorted(result)
                if not key.startswith(NOT_RECORDED) and "seconds" not in key
            }
        )
    recorded["module"] = checksums(learner.module[DEFAULT_MODULE_ID].unwrapped().state_dict())
    return recorded


def training() -> dict[str, Any]:
    """Losses, weights and replay of a whole algorithm after three seeded iterations."""
    tasks = [scripted_task(5, 2, 1), scripted_task(9, 3, 2, terminates=False)]
    config = (
        tiny_config(tasks)
        .training(replay_ratio=0.3, num_random_steps=20, weight_sync_interval=2, lr=1e-3)
        .reporting(min_sample_timesteps_per_iteration=40)
        .evaluation(evaluation_interval=3, evaluation_duration=1)
    )
    algorithm = config.build_algo()
    results = [algorithm.train() for _ in range(3)]
    recorded: dict[str, Any] = {"iterations": []}
    for result in results:
        learned = result.get("learners", {}).get(DEFAULT_MODULE_ID, {})
        recorded["iterations"].append(
            {
                "num_updates_lifetime": result["num_updates_lifetime"],
                "score": exact(result["normalized_score_mean"]),
                **{
                    key: exact(learned[key])
                    for key in sorted(learned)
                    if not key.startswith(NOT_RECORDED) and "seconds" not in key
                },
            }
        )
    recorded["evaluation"] = exact(algorithm.evaluation_score_mean)
    state = algorithm.learner_group.get_state(components="learner")["learner"]
    recorded["module"] = checksums(state["rl_module"][DEFAULT_MODULE_ID])
    rings = algorithm.replay_buffer.get_state()["rings"]
    recorded["replay"] = {
        f"{ring}/{name}": checksum(column)
        for ring, content in rings.items()
        for name, column in content["columns"].items()
    }
    algorithm.stop()
    return recorded


def exact(value: Any) -> Any:
    """Floats as hexadecimal text, arrays as lists of it."""
    if isinstance(value, list):
        value = [np.asarray(part, np.float64) for part in value]
    values = np.asarray(value, np.float64)
    hexadecimal = [float(x).hex() for x in values.ravel()]
    return hexadecimal[0] if values.ndim == 0 else hexadecimal


def checksum(array: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(np.asarray(array)).tobytes())


def checksums(state: dict[str, Any]) -> dict[str, int]:
    """Of a module's state: one for the online network, one for the target network, one a window."""
    parts: dict[str, int] = {}
    for name, value in sorted(state.items()):
        part = name.partition(".")[0]
        parts[part] = zlib.crc32(name.encode(), parts.get(part, 0)) ^ checksum(value)
    return parts


def main(out: str) -> None:
    torch.set_num_threads(1)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    recorded = {name: updates(name) for name in CASES}
    recorded["training"] = training()
    Path(out).write_text(json.dumps(recorded, indent=0) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
