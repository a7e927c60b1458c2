from __future__ import annotations

import pytest
import torch
from oracles.tiny_model import OBSERVATION_MASK, random_inputs, tiny_model

from rllib_ezm.models.unroll import Unroll, scale_gradient, unroll_world_model

STEPS = 3


def flat_gradients(outputs, parameters):
    gradients = torch.autograd.grad(outputs, parameters, allow_unused=True, retain_graph=True)
    return torch.cat([g.flatten() for g in gradients if g is not None])


def objective(unroll):
    """A scalar that every prediction enters."""
    parts = [x.float().square().mean() for x in unroll[:4]]
    agreement = (unroll.latent_predictions * unroll.latent_targets).float().mean()
    return torch.stack([*parts, agreement]).sum()


def test_scale_gradient_by_hand():
    x = torch.tensor([3.0], requires_grad=True)
    y = scale_gradient(x, 0.5)
    assert y.item() == 3.0
    # d(y^2)/dx = 2 * 3, times 0.5.
    assert torch.autograd.grad(y.square(), x)[0].item() == 3.0


def test_unroll_is_the_model_step_by_step():
    model, inputs = tiny_model(), random_inputs(steps=STEPS)
    unroll = unroll_world_model(model, *inputs)
    observations, actions, task_ids = inputs
    embedding = model.embed(task_ids)
    latent = model.represent(observations[:, 0], task_ids, embedding)
    for k in range(STEPS + 1):
        prediction = model.predict(latent, embedding)
        torch.testing.assert_close(unroll.value_logits[k], prediction.value_logits)
        torch.testing.assert_close(unroll.mean[k], prediction.mean)
        torch.testing.assert_close(unroll.log_std[k], prediction.log_std)
        if k == STEPS:
            break
        reward_logits = model.reward(latent, actions[:, k], embedding)
        torch.testing.assert_close(unroll.reward_logits[k], reward_logits)
        latent = model.dynamics(latent, actions[:, k], embedding)
        predicted = model.project(latent, with_predictor=True)
        torch.testing.assert_close(unroll.latent_predictions[k], predicted)
        encoded = model.represent(observations[:, k + 1], task_ids, embedding)
        target = model.project(encoded, with_predictor=False)
        torch.testing.assert_close(unroll.latent_targets[k], target)


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


def test_train_mode_takes_batch_norm_statistics_anew_at_each_step():
    model, batch = tiny_model().train(), 6
    # Rewards are predicted at transitions 0..K-1, values and policy at states 0..K.
    positions = {
        model.reward_model.head.layers[1]: STEPS,
        model.value_policy_model.value_heads.first_norm: STEPS + 1,
    }
    seen = {norm: [] for norm in positions}
    for norm in positions:
        norm.register_forward_pre_hook(lambda layer, args: seen[layer].append(args[0]))
    unroll_world_model(model, *random_inputs(batch, STEPS))
    for norm, count in positions.items():
        assert [x.shape[0] for x in seen[norm]] == [batch] * count
        expected = torch.zeros_like(norm.running_mean)
        for x in seen[norm]:
            expected = 0.9 * expected + 0.1 * x.mean(0)
        torch.testing.assert_close(norm.running_mean, expected)


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
