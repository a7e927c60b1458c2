from __future__ import annotations

import math

import pytest
import torch
from helpers.tiny_model import ACTION_DIM, OBS_DIM, OBSERVATION_MASK, tiny_model

from rllib_ezm.probes.model_errors import ModelErrors, model_errors, task_means

K, N, DISCOUNT = 2, 2, 0.9
SIZES = {"unroll_steps": K, "td_steps": N, "discount": DISCOUNT}


def segments() -> dict[str, torch.Tensor]:
    """Of tasks 0, 0 and 1: a whole one, one that terminates after a step, one that is cut."""
    generator = torch.Generator().manual_seed(3)
    task_ids = torch.tensor([0, 0, 1])
    step_mask = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]])
    return {
        "obs": torch.randn(3, K + N + 1, OBS_DIM, generator=generator)
        * OBSERVATION_MASK[task_ids, None],
        "actions": torch.rand(3, K + 1, ACTION_DIM, generator=generator),
        "rewards": torch.randn(3, K + N, generator=generator) * step_mask,
        "step_mask": step_mask,
        "terminal": torch.tensor([0.0, 1.0, 0.0]),
        "task_ids": task_ids,
        "age": torch.tensor([10, 30, 5]),
    }


def by_loops(
    model: torch.nn.Module, batch: dict[str, torch.Tensor]
) -> dict[str, list[list[float]]]:
    """Every error of every sample, one state at a time; rows end with the segment."""
    found: dict[str, list[list[float]]] = {name: [] for name in ModelErrors._fields[:5]}
    for row in range(3):
        task = batch["task_ids"][row : row + 1]
        length = int(batch["step_mask"][row].sum())
        terminal = bool(batch["terminal"][row])
        embedding = model.embed(task)

        def heads(
            latent: torch.Tensor, *, root: bool, embedding: torch.Tensor = embedding
        ) -> torch.Tensor:
            logits = model.predict(latent, embedding, root=root).value_logits
            return model.value_support.decode(logits)[:, 0]

        real = [model.represent(obs[None], task, embedding) for obs in batch["obs"][row]]
        latent, imagined, rewards = real[0], [real[0]], []
        for k in range(K):
            action = batch["actions"][row, k][None]
            logits = model.reward(latent, action, embedding)
            rewards.append(model.reward_support.decode(logits).item())
            latent = model.dynamics(latent, action, embedding)
            imagined.append(latent)
        head_values = [heads(h, root=k == 0) for k, h in enumerate(imagined)]
        values = [v.mean().item() for v in head_values]
        errors: dict[str, list[float]] = {name: [] for name in found}
        for k in range(K + 1):
            if k < length or (k == length and terminal):
                end = min(k + N, length)
                target = sum(
                    DISCOUNT ** (i - k) * batch["rewards"][row, i].item() for i in range(k, end)
                )
                if not (end == length and terminal):
                    target += DISCOUNT ** (end - k) * heads(real[end], root=True).mean().item()
                errors["value"].append(abs(values[k] - target))
                errors["value_variance"].append(head_values[k].var(unbiased=False).item())
            if k < K and k < length:
                errors["reward"].append(abs(rewards[k] - batch["rewards"][row, k].item()))
                relative = (imagined[k + 1] - real[k + 1]).norm() / real[k + 1].norm()
                errors["latent"].append(relative.item())
                follows = 0.0 if terminal and k + 1 == length else values[k + 1]
                errors["path_gap"].append(abs(values[k] - rewards[k] - DISCOUNT * follows))
        for name, per_step in errors.items():
            found[name].append(per_step)
    return found


def test_errors_match_a_loop_over_samples_and_steps() -> None:
    model, batch = tiny_model(), segments()
    with torch.no_grad():
        expected = by_loops(model, batch)
    errors = model_errors(model, batch, **SIZES)
    for name, rows in expected.items():
        got = getattr(errors, name)
        steps = got.shape[1]
        assert steps == (K + 1 if name in ("value", "value_variance") else K)
        for k in range(steps):
            of_task_0 = [row[k] for row in rows[:2] if k < len(row)]
            mean = sum(of_task_0) / len(of_task_0)
            assert got[0, k].item() == pytest.approx(mean, rel=1e-4), (name, k)
            assert got[1, k].item() == pytest.approx(rows[2][k], rel=1e-4), (name, k)
    assert errors.age.tolist() == [[20.0], [5.0]]


def test_overflow_is_the_share_outside_the_support() -> None:
    model, batch = tiny_model(reward_support=(-1.0, 1.0)), segments()
    batch["rewards"] = torch.tensor([[0.5, 3.0, 0, 0], [2.0, 9.0, 9, 9], [0.1, 0.2, 60.0, 0]])
    errors = model_errors(model, batch, **SIZES)
    assert errors.reward_overflow[:, 0].tolist() == pytest.approx([2 / 3, 0.0])
    # Task 1: 60 is within two steps of its states 1 and 2, not 0; the support ends at 50.
    assert errors.value_overflow[:, 0].tolist() == pytest.approx([0.0, 2 / 3])


def test_a_task_without_data_is_nan() -> None:
    means = task_means(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([1, 1]), num_tasks=3)
    assert means[1].tolist() == [1.0] * 3
    assert all(math.isnan(value) for task in (0, 2) for value in means[task].tolist())
