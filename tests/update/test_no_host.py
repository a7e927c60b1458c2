"""A whole update on the "meta" device, whose tensors have shapes and no values.

Whatever is read back to the host raises there, and so does a tensor that was left on the CPU. What
passes can run on an accelerator without waiting for it, and has static shapes.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from helpers.tiny_step import BATCH, CASES, SMALL, make_step, random_batch
from torch.utils._python_dispatch import TorchDispatchMode

from rllib_ezm.update.metric_sums import MetricSums

META = torch.device("meta")


class OnlyOn(TorchDispatchMode):
    """Raises where an operation sees a tensor with elements on another device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.seen = device, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for x in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(x, torch.Tensor):
                assert x.device == self.device, f"{func} of a tensor on {x.device}"
                self.seen += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def fused_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused kernel has a meta version; the optimizer's list of devices lacks it."""
    module = importlib.import_module("torch.optim.optimizer")
    monkeypatch.setattr(module, "_get_fused_kernels_supported_devices", lambda: ["meta"])


def make_batch(device: torch.device) -> dict[str, torch.Tensor]:
    return {name: column.to(device) for name, column in random_batch().items()}


@pytest.mark.usefixtures("fused_on_meta")
@pytest.mark.parametrize("case", CASES)
def test_nothing_of_an_update_comes_to_the_host(case: str) -> None:
    search, changes = CASES[case]
    step, batch = make_step(META, search, **changes), make_batch(META)
    step(batch)  # makes what is made once: the optimizer's moments, constants, the folded view
    sums = MetricSums(())
    with OnlyOn(META) as watched:
        output = step(batch)
        sums.add(output.metrics)
    assert watched.seen > 1000
    assert output.priorities.device == META
    assert output.priorities.shape == (BATCH,)
    assert step.num_updates == 2
    with pytest.raises(RuntimeError, match="meta"):
        step.check_finite(output, batch)  # the reading that is left to its caller


@pytest.mark.usefixtures("fused_on_meta")
def test_what_is_left_on_the_host_is_noticed() -> None:
    step, batch = make_step(META, SMALL), make_batch(META)
    step(batch)
    with pytest.raises(AssertionError, match="of a tensor on cpu"), OnlyOn(META):
        step({**batch, "weights": torch.ones(BATCH)})
