"""Targets and losses as graphs. What inductor makes of them is measured by benchmarks/compiled.py.

It takes minutes to compile, so here the graphs are made and run as they are (`backend="eager"`):
that one can be made of each, and that making it has no effect.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from helpers.tiny_step import CASES, make_step, random_batch

from rllib_ezm.update.step import GradientStep

CPU = torch.device("cpu")


def updates(step: GradientStep, number: int) -> list[dict[str, torch.Tensor]]:
    """Results of some updates with random numbers of their own."""
    torch.manual_seed(3)
    found = []
    for seed in range(number):
        output = step(random_batch(seed))
        found.append({"loss": output.loss, "priorities": output.priorities, **output.metrics})
    return found


@pytest.mark.parametrize("case", CASES)
def test_an_update_is_two_graphs_and_the_same_update(case: str) -> None:
    search, changes = CASES[case]
    changes = {"value_reduction": "mean", **changes}  # a graph draws its own random pairs
    plain = make_step(CPU, search, **changes)
    graphs = make_step(CPU, search, **changes)
    graphs._compile_mode = "eager"
    expected, found = updates(plain, 3), updates(graphs, 3)
    assert graphs._targets != graphs._make_targets, "no graph could be made"
    assert graphs._losses != graphs._make_losses
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6, msg=name)
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(graphs.model.state_dict()[name], value, msg=name)


def test_what_cannot_be_compiled_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    search, changes = CASES["paper"]
    plain = make_step(CPU, search, **changes)
    other = make_step(CPU, search, compile="default", **changes)

    def no_compiler(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no C++ compiler\nand a long trace")

    monkeypatch.setattr("rllib_ezm.update.step.one_graph", lambda function, mode: no_compiler)
    before = copy.deepcopy(other.model.state_dict())
    with caplog.at_level(logging.WARNING):
        expected, found = updates(plain, 2), updates(other, 2)
    assert [r.getMessage() for r in caplog.records][-1] == (
        "compile='default' failed, and the update runs without it: RuntimeError: no C++ compiler"
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert before.keys() == other.model.state_dict().keys()
