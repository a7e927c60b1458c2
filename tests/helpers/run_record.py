"""Everything that two runs must have in common to be the same run, as flat named arrays.

`python -m helpers.run_record CHECKPOINT ITERATIONS OUT.npz ADDRESS` goes on from a checkpoint in a
process of its own that has not imported the package, on a running Ray, and writes the record.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm

if TYPE_CHECKING:
    from rllib_ezm import EZM

TIMINGS = ("time", "seconds", "duration", "throughput", "_per_s", "perf", "date")
PROCESS = ("pid", "hostname", "node_ip", "trial_id", "iterations_since_restore", "sample")
NAMES = ("config", "ongoing_ids")
"""What cannot be compared: clocks (`sample` is one), the process, and the episodes' UUIDs."""


def go_on(algorithm: EZM, iterations: int) -> dict[str, np.ndarray]:
    """Trains on, and returns the results of each iteration and the whole state at the end."""
    tree: dict[str, Any] = {f"result {index}": algorithm.train() for index in range(iterations)}
    tree["learner"] = algorithm.learner_group.get_state(components="learner")["learner"]
    tree["replay"] = algorithm.replay_buffer.get_state()
    tree["tasks"] = algorithm.task_statistics.get_state()
    return dict(leaves(tree))


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Every number, string and array of a nested structure that can be compared."""
    name = path.rsplit("/", 1)[-1]
    if any(word in path for word in TIMINGS) or name in (*PROCESS, *NAMES):
        return
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(tree, (list, tuple)) and any(isinstance(x, (dict, list)) for x in tree):
        for index, value in enumerate(tree):
            yield from leaves(value, f"{path}/{index}")
    elif isinstance(tree, torch.Tensor):
        yield path, tree.numpy(force=True)
    elif isinstance(tree, (bool, int, float, str, np.generic, np.ndarray, list, tuple)):
        yield path, np.asarray(tree)


def main() -> None:
    """Entry of the new process."""
    import ray

    checkpoint, iterations, out, address = sys.argv[1:]
    ray.init(address=address, log_to_driver=False)
    assert not any(name.startswith("rllib_ezm") for name in sys.modules)
    algorithm = Algorithm.from_checkpoint(checkpoint)
    np.savez(out, **go_on(algorithm, int(iterations)))
    algorithm.stop()


if __name__ == "__main__":
    main()
