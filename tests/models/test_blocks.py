from __future__ import annotations

import math

import pytest
import torch

from rllib_ezm.models.blocks import (
    BatchNormHead,
    EnsembleBatchNormHead,
    EnsembleLinear,
    Predictor,
    Projector,
    ResidualBlock,
    TanhEncoder,
    TransitionTrunk,
)

# LayerNorm of [1, 3]: mean 2, biased variance 1, so [-UNIT, UNIT] (epsilon 1e-5).
UNIT = 1 / math.sqrt(1 + 1e-5)


def set_linear(layer, weight, bias):
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))


def test_residual_block_by_hand():
    block = ResidualBlock(2)
    set_linear(block.expand, [[1.0, 0.0], [0.0, 1.0]], [0.0, 0.5])
    set_linear(block.project, [[0.0, 2.0], [1.0, 0.0]], [0.25, 0.0])
    # W1 LN(x) = [-UNIT, UNIT + 0.5]; relu: [0, UNIT + 0.5]; W2: [2 UNIT + 1 + 0.25, 0].
    expected = torch.tensor([[1.0 + 2 * UNIT + 1.25, 3.0]])
    torch.testing.assert_close(block(torch.tensor([[1.0, 3.0]])), expected)


def test_tanh_encoder_by_hand():
    encoder = TanhEncoder(1, 2)
    set_linear(encoder.linear, [[1.0], [3.0]], [0.0, 0.0])
    # The linear layer maps 1 to [1, 3].
    expected = torch.tensor([[-math.tanh(UNIT), math.tanh(UNIT)]])
    torch.testing.assert_close(encoder(torch.tensor([[1.0]])), expected)


def test_transition_trunk_by_hand():
    trunk = TransitionTrunk(latent_dim=1, context_dim=1, num_blocks=1)
    set_linear(trunk.mix, [[1.0, 2.0]], [0.0])
    set_linear(trunk.project, [[3.0]], [0.5])
    set_linear(trunk.blocks[0].project, [[0.0]], [0.0])
    # LN([1, 3]) = [-UNIT, UNIT]; mix: UNIT; project: 3 UNIT + 0.5; skip from h = 1.
    out = trunk(torch.tensor([[1.0]]), torch.tensor([[3.0]]))
    torch.testing.assert_close(out, torch.tensor([[1.0 + 3 * UNIT + 0.5]]))


@pytest.mark.parametrize("zero_init", [True, False])
def test_zero_init_makes_the_first_output_exactly_zero(zero_init):
    torch.manual_seed(0)
    out = BatchNormHead(3, 4, 2, zero_init=zero_init)(torch.randn(5, 3))
    assert out.shape == (5, 2)
    assert bool((out == 0).all()) == zero_init


def test_ensemble_linear_starts_like_linear_layers_that_differ():
    torch.manual_seed(0)
    layer = EnsembleLinear(3, 16, 50)
    bound = 1 / math.sqrt(16)
    for parameter in (layer.weight, layer.bias):
        assert parameter.abs().max() <= bound
        # A uniform variable in +-bound has standard deviation bound / sqrt(3).
        assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert not torch.equal(layer.weight[0], layer.weight[1])


def test_ensemble_head_equals_separate_heads_in_both_modes():
    torch.manual_seed(0)
    num_heads, hidden = 3, 4
    ensemble = EnsembleBatchNormHead(num_heads, 5, hidden, 2)
    with torch.no_grad():
        for norm in (ensemble.first_norm, ensemble.second_norm):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
    heads = [BatchNormHead(5, hidden, 2, zero_init=False) for _ in range(num_heads)]
    for i, head in enumerate(heads):
        rows = slice(i * hidden, (i + 1) * hidden)
        head.load_state_dict(
            {
                "layers.0.weight": ensemble.first.weight[rows],
                "layers.0.bias": ensemble.first.bias[rows],
                **{f"layers.1.{k}": _rows(v, rows) for k, v in _state(ensemble.first_norm)},
                "layers.3.weight": ensemble.second.weight[i].T,
                "layers.3.bias": ensemble.second.bias[i, 0],
                **{f"layers.4.{k}": _rows(v, rows) for k, v in _state(ensemble.second_norm)},
                "output.weight": ensemble.output.weight[i].T,
                "output.bias": ensemble.output.bias[i, 0],
            }
        )
    for training in (True, True, False):
        x = torch.randn(6, 5)
        ensemble.train(training)
        expected = torch.stack([head.train(training)(x) for head in heads])
        torch.testing.assert_close(ensemble(x), expected)


def _state(norm):
    return norm.state_dict().items()


def _rows(value, rows):
    return value[rows] if value.ndim else value


def test_projector_and_predictor_keep_the_width():
    x = torch.randn(4, 6)
    projected = Projector(6, 8)(x)
    assert projected.shape == Predictor(6, 8)(projected).shape == (4, 6)
    # The projector ends in a LayerNorm: mean 0 and variance 1 of every row.
    torch.testing.assert_close(projected.mean(-1), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(projected.var(-1, correction=0), torch.ones(4), atol=1e-2, rtol=0)
