from __future__ import annotations

import pytest
import torch
from helpers.tiny_model import OBSERVATION_MASK, random_inputs, tiny_model
from oracles.unroll_oracle import stepwise_unroll
from torch.utils._python_dispatch import TorchDispatchMode

from rllib_ezm.models.step_batch_norm import StepBatchNorm
from rllib_ezm.models.unroll import Unroll, scale_gradient, unroll_world_model

STEPS = 3


class DispatchCounter(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, StepBatchNorm)]


def flat_gradients(outputs, parameters):
    gradients = torch.autograd.grad(outputs, parameters, allow_unused=True, retain_graph=True)
    return torch.cat([g.flatten() for g in gradients if g is not None])


def objective(unroll):
    """A scalar that every prediction enters."""
    parts = [x.double().square().mean() for x in unroll[:4]]
    agreement = (unroll.latent_predictions * unroll.latent_targets).double().mean()
    return torch.stack([*parts, agreement]).sum()


def test_scale_gradient_by_hand():
    x = torch.tensor([3.0], requires_grad=True)
    y = scale_gradient(x, 0.5)
    assert y.item() == 3.0
    # d(y^2)/dx = 2 * 3, times 0.5.
    assert torch.autograd.grad(y.square(), x)[0].item() == 3.0


@pytest.mark.parametrize("training", [True, False])
def test_unroll_is_the_model_step_by_step(training):
    results = []
    for unroll in (stepwise_unroll, unroll_world_model):
        model = tiny_model().double().train(training)
        with torch.no_grad():
            for norm in batch_norms(model):
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.uniform_(-0.5, 0.5)
                for mean, variance in (norm.statistics(root) for root in (False, True)):
                    mean.uniform_(-0.5, 0.5)
                    variance.uniform_(0.5, 1.5)
        for seed in (1, 2):
            inputs = random_inputs(steps=STEPS, seed=seed)
            predictions = unroll(model, inputs[0].double(), inputs[1].double(), inputs[2])
            objective(predictions).backward()
        results.append((predictions, model))
    (expected, oracle), (predictions, model) = results
    for name, x, y in zip(Unroll._fields, predictions, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10, msg=name)
    gradients = {name: p.grad for name, p in oracle.named_parameters()}
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, gradients[name], rtol=1e-10, atol=1e-10, msg=name
        )
    # The running statistics after two calls, and the number of imagined batches (or, for the
    # reward, of all batches) that they have seen.
    buffers = dict(oracle.named_buffers())
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], rtol=1e-10, atol=1e-10, msg=name)
    counts = {int(norm.num_batches_tracked) for norm in batch_norms(model)}
    assert counts == {2 * STEPS if training else 0}


def test_unroll_dispatches_few_operators():
    def dispatches(unroll, steps):
        model, inputs = tiny_model().train(), random_inputs(steps=steps)
        with DispatchCounter() as counter:
            unroll(model, *inputs)
        return counter.count

    # Only the dynamics are called once per step: about 25 operators with one residual block.
    growth = [
        dispatches(unroll_world_model, k + 1) - dispatches(unroll_world_model, k) for k in (4, 9)
    ]
    assert max(growth) < 40
    assert dispatches(unroll_world_model, 5) < 0.7 * dispatches(stepwise_unroll, 5)


def test_unroll_shapes_are_k_major():
    unroll = unroll_world_model(tiny_model(), *random_inputs(batch=4, steps=STEPS))
    assert unroll.reward_logits.shape == (STEPS, 4, 11)
    assert unroll.value_logits.shape == (STEPS + 1, 3, 4, 11)
    assert unroll.mean.shape == unroll.log_std.shape == (STEPS + 1, 4, 3)
    assert unroll.latent_predictions.shape == unroll.latent_targets.shape == (STEPS, 4, 8)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_gradient_into_each_predicted_latent_is_halved(depth):
    model, inputs = tiny_model(), random_inputs(steps=STEPS)
    encoder = list(model.representation.parameters())

    def encoder_gradient(scale):
        unroll = unroll_world_model(model, *inputs, latent_gradient_scale=scale)
        return flat_gradients(unroll.mean[depth].sum(), encoder)

    full = encoder_gradient(1.0)
    assert full.abs().max() > 0
    # The prediction at depth k passes k predicted latents on its way back to the encoder.
    torch.testing.assert_close(encoder_gradient(0.5), 0.5**depth * full, rtol=1e-4, atol=1e-6)


def test_consistency_gradient_passes_the_halving_too():
    model, inputs = tiny_model(), random_inputs(steps=STEPS)
    dynamics = list(model.dynamics_model.parameters())

    def gradient(scale):
        unroll = unroll_world_model(model, *inputs, latent_gradient_scale=scale)
        return flat_gradients(unroll.latent_predictions[0].square().sum(), dynamics)

    torch.testing.assert_close(gradient(0.5), 0.5 * gradient(1.0), rtol=1e-4, atol=1e-6)


def test_consistency_targets_carry_no_gradient():
    unroll = unroll_world_model(tiny_model(), *random_inputs())
    assert not unroll.latent_targets.requires_grad
    assert unroll.latent_predictions.requires_grad


def test_padded_observation_dimensions_change_nothing():
    model, inputs = tiny_model(), random_inputs()
    model.normalizer.update(inputs.observations[:, 0] * 3 + 1, inputs.task_ids)
    padding = 1.0 - OBSERVATION_MASK[inputs.task_ids, None]
    garbage = inputs.observations + 1e6 * padding
    assert not torch.equal(garbage, inputs.observations)
    before = unroll_world_model(model, *inputs)
    after = unroll_world_model(model, garbage, inputs.actions, inputs.task_ids)
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_compiled_unroll_equals_the_eager_one(precision, tolerance):
    inputs = random_inputs(batch=4, steps=2)
    results = []
    torch.compiler.reset()
    for compiled in (False, True):
        model = tiny_model().train()
        call = unroll_world_model
        if compiled:
            call = torch.compile(unroll_world_model, backend="aot_eager", fullgraph=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            unroll = Unroll(*call(model, *inputs))
        parameters = list(model.parameters())
        results.append((unroll, flat_gradients(objective(unroll), parameters)))
    (eager, eager_gradient), (fast, fast_gradient) = results
    for name, x, y in zip(Unroll._fields, eager, fast, strict=True):
        assert x.dtype == y.dtype, name
        torch.testing.assert_close(y, x, rtol=tolerance, atol=tolerance, msg=name)
    torch.testing.assert_close(fast_gradient, eager_gradient, rtol=tolerance, atol=tolerance)


def test_bf16_autocast_is_finite_and_close_to_fp32():
    model, inputs = tiny_model(), random_inputs(batch=16)
    exact = unroll_world_model(model, *inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = unroll_world_model(model, *inputs)
    gradient = flat_gradients(objective(rounded), list(model.parameters()))
    assert torch.isfinite(gradient).all()
    assert gradient.dtype == torch.float32
    for name, x, y in zip(Unroll._fields, exact, rounded, strict=True):
        assert torch.isfinite(y).all(), name
        assert (y.float() - x).abs().mean() < 0.05 * x.abs().mean() + 1e-3, name
    expected = flat_gradients(objective(exact), list(model.parameters()))
    assert torch.cosine_similarity(gradient, expected, dim=0) > 0.98
