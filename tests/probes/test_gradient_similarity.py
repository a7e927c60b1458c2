from __future__ import annotations

import pytest
import torch
from helpers.tiny_model import random_inputs, tiny_model

from rllib_ezm.models.unroll import unroll_world_model
from rllib_ezm.probes.gradient_similarity import cosines, module_groups, task_gradients


def test_cosines_of_two_tasks_by_hand() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    bias = torch.tensor([0.5], requires_grad=True)
    unused = torch.tensor([7.0], requires_grad=True)
    x = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 4.0]])
    task_ids = torch.tensor([0, 0, 2])
    losses = (x @ weight + bias) ** 2 / 2  # gradient: (w x + b) x and w x + b
    groups = {"weight": [weight], "both": [weight, bias], "unused": [unused]}
    gradients = task_gradients(losses, task_ids, groups, num_tasks=3)

    # Task 0: outputs 3.5 and 1.5, so (10.5 + 1.5) / 2 = 6 and 2.5. Task 2: output 8.5.
    expected = torch.tensor([[6.0, 0.0], [torch.nan] * 2, [0.0, 34.0]])
    torch.testing.assert_close(gradients["weight"], expected, equal_nan=True)
    assert cosines(gradients["weight"])[0, 2] == 0.0
    lengths = (6.0**2 + 2.5**2) ** 0.5 * (34.0**2 + 8.5**2) ** 0.5
    both = cosines(gradients["both"])
    assert both[0, 2].item() == pytest.approx(2.5 * 8.5 / lengths)
    assert both[2, 0] == both[0, 2]
    assert both[2, 2].item() == pytest.approx(1.0)
    assert both[1].isnan().all()
    assert cosines(gradients["unused"]).isnan().all(), "a zero gradient has no direction"


def test_task_gradients_add_up_to_the_gradient_of_the_batch() -> None:
    model = tiny_model().double().train()
    inputs = random_inputs(batch=7)
    unroll = unroll_world_model(
        model, inputs.observations.double(), inputs.actions.double(), inputs.task_ids
    )
    losses = (
        unroll.reward_logits.square().sum((0, 2))
        + unroll.value_logits.square().sum((0, 1, 3))
        + unroll.mean.square().sum((0, 2))
        + unroll.latent_predictions.sum((0, 2))
    )
    groups = module_groups(model)
    assert list(groups) == ["representation", "dynamics", "reward", "value_policy"]
    parameters = [parameter for group in groups.values() for parameter in group]
    whole = torch.autograd.grad(losses.mean(), parameters, retain_graph=True)
    gradients = task_gradients(losses, inputs.task_ids, groups, num_tasks=2)
    assert all(parameter.grad is None for parameter in model.parameters())
    shares = torch.bincount(inputs.task_ids).double() / 7
    summed = torch.cat([shares @ rows for rows in gradients.values()])
    torch.testing.assert_close(summed, torch.cat([gradient.flatten() for gradient in whole]))
    assert all(rows.norm(dim=1).min() > 0.0 for rows in gradients.values())
