"""Learners that share a batch keep the statistics, and get the gradients, of the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.gloo import run_ranks
from helpers.tiny_model import random_inputs, tiny_model

from rllib_ezm.models.collective import Collective, TorchCollective, share_statistics
from rllib_ezm.models.unroll import unroll_world_model
from rllib_ezm.update.variance_window import VarianceWindow

BATCH, STEPS = 8, 3


def gradients_and_statistics(share: slice, collective: Collective):
    """Of two updates' forward and backward passes on a share of the batch, summed over ranks."""
    model = tiny_model().double().train()
    window = VarianceWindow(2, 0.9).double()
    for module in (model, window):
        share_statistics(module, collective)
    for seed in (1, 2):
        observations, actions, task_ids = (
            x[share] for x in random_inputs(BATCH, steps=STEPS, seed=seed)
        )
        observations, actions = observations.double(), actions.double()
        model.normalizer.update(observations[:, 0], task_ids)
        window.update(observations[:, :, 0].square(), torch.ones(len(task_ids), 4), task_ids)
        unroll = unroll_world_model(model, observations, actions, task_ids)
        heads = [unroll.reward_logits, unroll.value_logits, unroll.mean, unroll.log_std]
        sum(x.square().sum() for x in heads).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    for gradient in gradients.values():
        gradient.copy_(collective.sum(gradient))
    return gradients, dict(model.named_buffers()), dict(window.named_buffers())


def on_rank(rank: int):
    half = BATCH // 2
    return gradients_and_statistics(slice(rank * half, (rank + 1) * half), TorchCollective())


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory):
    return run_ranks(on_rank, 2, tmp_path_factory.mktemp("gloo"))


def test_two_halves_of_a_batch_are_the_batch(halves):
    whole = gradients_and_statistics(slice(None), Collective())
    for part in halves:
        for found, expected in zip(part, whole, strict=True):
            assert set(found) == set(expected)
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)


def test_a_half_alone_is_not_the_batch(halves):
    gradients, buffers, window = gradients_and_statistics(slice(0, BATCH // 2), Collective())
    assert not torch.allclose(window["low"], halves[0][2]["low"])
    for found, shared in ((gradients, halves[0][0]), (buffers, halves[0][1])):
        different = [name for name in found if not torch.allclose(found[name], shared[name])]
        assert len(different) > 5


def test_statistics_stay_fp32_under_autocast(tmp_path: Path):
    for exact, rounded in run_ranks(under_autocast, 2, tmp_path):
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(exact, rounded)


def under_autocast(rank: int):
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        head = tiny_model().train().value_policy_model.policy_head
        share_statistics(head, TorchCollective())
        rows = torch.randn(BATCH, 7, generator=torch.Generator().manual_seed(rank)).bfloat16()
        norm = head.layers[1]
        with torch.autocast("cpu", torch.bfloat16):
            norm(rows.to(dtype), 2)
        found.append(norm.root_var.clone())
    return found
