"""Training while the object store holds nothing but other people's objects.

A process of its own: an object store cannot be shrunk for one test.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import ray
from ray.rllib.core import DEFAULT_MODULE_ID

sys.path.insert(0, str(Path(__file__).parent.parent))

from helpers.tiny import tiny_config

STORE = 100 * 2**20
PIECE = 4 * 2**20


def main() -> None:
    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=STORE,
        include_dashboard=False,
        log_to_driver=False,
    )
    pieces = [ray.put(np.full(PIECE, i, dtype=np.uint8)) for i in range(2 * STORE // PIECE)]
    in_use = [ray.get(piece) for piece in pieces[-STORE // PIECE + 3 :]]
    config = (
        tiny_config([{"name": "gym:Pendulum-v1", "max_episode_steps": 20}])
        .world_model(latent_dim=256, head_dim=256)
        .env_runners(num_env_runners=2)
        .reporting(min_sample_timesteps_per_iteration=60)
    )
    algorithm = config.build_algo()
    for _ in range(4):
        result = algorithm.train()
    steps = result["tasks"]["gym:Pendulum-v1"]["env_steps"]
    assert steps == result["replay_transitions"] >= 240
    assert result["num_updates_lifetime"] > 30
    assert math.isfinite(result["learners"][DEFAULT_MODULE_ID]["value_loss"])
    algorithm.stop()
    assert [int(piece[-1]) for piece in in_use] == list(range(len(pieces))[-len(in_use) :])
    print("sound", steps, sum(piece.nbytes for piece in in_use) / STORE)


if __name__ == "__main__":
    main()
