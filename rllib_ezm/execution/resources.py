"""Whether the processes of a run fit on the Ray that is there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import ray
import torch

from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.ray_internals import is_own_cluster

logger = logging.getLogger(__name__)


def check_fits(required: Mapping[str, float], bundles: Iterable[Mapping[str, float]] = ()) -> None:
    """Raise if the Ray of this process can never place what is asked for, instead of waiting.

    A cluster that this process did not start may grow: there, a warning says what is missing.

    Args:
        required: Amounts by resource, e.g. `{"CPU": 3, "GPU": 1}`.
        bundles: What must be on one node each, as an actor must.

    Raises:
        UserError: If Ray was started by this process and has less, or no node that holds a bundle.
    """
    fixes = {
        "CPU": "raise --ray-num-cpus (in Python: ray.init(num_cpus=...), logical CPUs may exceed "
        "real ones) or lower num_env_runners in the config",
        "GPU": "set num_gpus_per_learner and other num_gpus_* to 0 in the config",
    }
    there = ray.cluster_resources()
    for name, amount in required.items():
        if amount > there.get(name, 0.0):
            found = f"a run asks for {amount:g} {name}, but Ray has {there.get(name, 0.0):g}"
            _refuse(found, fixes.get(name, "change the config"))
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for bundle in bundles:
        if not any(_holds(node, bundle) for node in nodes):
            _refuse(
                f"one process of a run asks for {_amounts(bundle)}, but no node of Ray has that: "
                + "; ".join(sorted({_amounts(node, bundle) for node in nodes})),
                "lower num_*_per_env_runner, per_learner, per_reanalyze_worker or "
                "per_replay_actor in the config",
            )


def check_local_gpu(num_learners: int, num_gpus_per_learner: float) -> None:
    """Raise if the learner of this process shall use a GPU that torch does not see.

    Raises:
        UserError: That is so.
    """
    if num_learners == 0 and num_gpus_per_learner and not torch.cuda.is_available():
        raise UserError(
            f"num_gpus_per_learner={num_gpus_per_learner:g}, but torch {torch.__version__} sees no "
            "CUDA device here: install a CUDA build of torch on a machine with a GPU, or set "
            ".learners(num_gpus_per_learner=0)"
        )


def _holds(node: Mapping[str, float], bundle: Mapping[str, float]) -> bool:
    return all(amount <= node.get(name, 0.0) for name, amount in bundle.items())


def _amounts(resources: Mapping[str, float], names: Iterable[str] | None = None) -> str:
    chosen = resources if names is None else names
    return " and ".join(f"{resources.get(name, 0.0):g} {name}" for name in chosen)


def _refuse(found: str, fix: str) -> None:
    if is_own_cluster():
        raise UserError(f"{found}: {fix}")
    logger.warning("%s: it waits until the cluster has grown.", found)
