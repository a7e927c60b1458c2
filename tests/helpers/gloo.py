"""Several processes of `torch.distributed` (gloo) on this machine, for one function."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray import cloudpickle
from torch import distributed


def run_ranks(function: Callable[[int], Any], size: int, folder: Path) -> list[Any]:
    """`function(rank)` in `size` processes of one group; what each returned.

    Args:
        function: It travels by value, with its module's other functions: pytest's names of test
            modules mean nothing to another process. It returns what `torch.save` takes.
        size: Number of processes.
        folder: An empty one, for the rendezvous and the results.
    """
    context = multiprocessing.get_context("spawn")
    module = sys.modules[function.__module__]
    cloudpickle.register_pickle_by_value(module)
    pickled = cloudpickle.dumps(function)
    cloudpickle.unregister_pickle_by_value(module)
    arguments = [(pickled, rank, size, str(folder)) for rank in range(size)]
    processes = [context.Process(target=_run, args=a) for a in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0] * size
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def _run(pickled: bytes, rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    torch.save(cloudpickle.loads(pickled)(rank), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()
