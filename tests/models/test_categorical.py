from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rllib_ezm.models.categorical import (
    CategoricalSupport,
    signed_hyperbolic,
    signed_parabolic,
)

PAPER = CategoricalSupport(-299.0, 299.0, 51)
# h(3) = sqrt(4) - 1 + 0.003 = 1.003, so three atoms at -1.003, 0, 1.003.
SMALL = CategoricalSupport(-3.0, 3.0, 3)


def test_signed_hyperbolic_by_hand():
    # h(3) = 2 - 1 + 0.003; h(-8) = -(3 - 1) - 0.008; h(0) = 0.
    x = torch.tensor([3.0, -8.0, 0.0])
    torch.testing.assert_close(signed_hyperbolic(x), torch.tensor([1.003, -2.008, 0.0]))
    torch.testing.assert_close(signed_parabolic(torch.tensor([1.003, -2.008, 0.0])), x)


def test_parabolic_inverts_hyperbolic_over_twelve_decades():
    x = torch.logspace(-6, 6, 401, dtype=torch.float64)
    x = torch.cat([-x, torch.zeros(1, dtype=torch.float64), x])
    torch.testing.assert_close(signed_parabolic(signed_hyperbolic(x)), x, rtol=1e-9, atol=0)


def test_parabolic_in_fp32_keeps_the_relative_precision_near_zero():
    y = torch.logspace(-7, 1.2, 200)
    exact = signed_parabolic(y.double())
    torch.testing.assert_close(signed_parabolic(y).double(), exact, rtol=1e-6, atol=0)


def test_atoms_are_those_of_the_released_code():
    assert PAPER.atoms.shape == (51,)
    assert PAPER.atoms[0].item() == pytest.approx(-16.61951, abs=5e-6)
    assert PAPER.atoms[-1].item() == pytest.approx(16.61951, abs=5e-6)
    spacing = PAPER.atoms.diff()
    torch.testing.assert_close(spacing, torch.full((50,), 0.664780), atol=4e-6, rtol=0)
    scalars = signed_parabolic(PAPER.atoms)
    listed = [0, 1.77, 4.41, 7.92, 12.3, 17.5, 23.7, 30.6, 38.4, 47.1, 56.6, 67.0, 78.2, 90.2, 103]
    assert scalars[25:40].tolist() == pytest.approx(listed, rel=5e-3)
    torch.testing.assert_close(scalars, -scalars.flip(0))
    assert scalars[-1].item() == pytest.approx(299.0, rel=1e-5)


def test_two_hot_by_hand():
    # h(1.25) = 1.5 - 1 + 0.00125 = 0.50125, and 0.50125 / 1.003 = 0.499751 of a spacing.
    encoded = SMALL.encode(torch.tensor([0.0, 3.0, -3.0, 1.25]))
    expected = torch.tensor(
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.500249, 0.499751]]
    )
    torch.testing.assert_close(encoded, expected, atol=1e-6, rtol=0)


def test_decode_by_hand():
    # Probabilities 1/4, 1/4, 1/2: mean -0.25075 + 0.5015 = 0.25075 in h-space. Its preimage
    # solves 0.001 t^2 + 1.002 t = 0.25075 with x = t (t + 2): t = 0.250187, x = 0.562967.
    logits = torch.tensor([1.0, 1.0, 2.0]).log()
    assert SMALL.decode(logits).item() == pytest.approx(0.562967, abs=2e-6)
    assert SMALL.decode(torch.zeros(3)).item() == 0.0


@given(st.lists(st.floats(-299, 299, width=32), min_size=1, max_size=20))
def test_encode_and_decode_are_exact_inverses(numbers):
    x = torch.tensor(numbers)
    encoded = PAPER.encode(x)
    assert encoded.shape == (len(numbers), 51)
    assert (encoded >= 0).all()
    assert ((encoded > 0).sum(-1) <= 2).all()
    torch.testing.assert_close(encoded.sum(-1), torch.ones(len(numbers)))
    # Logarithms of the probabilities are logits of the same distribution.
    torch.testing.assert_close(PAPER.decode(encoded.log()), x, rtol=2e-5, atol=1e-5)


def test_the_two_atoms_are_neighbors():
    encoded = PAPER.encode(torch.linspace(-298, 298, 997))
    assert ((encoded[:, :-1] > 0) & (encoded[:, 1:] > 0)).sum(-1).max() == 1
    for row in encoded:
        index = row.nonzero().flatten()
        assert index.max() - index.min() <= 1


def test_values_outside_go_to_the_end_atoms_and_are_reported():
    x = torch.tensor([-1e6, -299.01, -299.0, 0.0, 299.0, 299.01, 1e6])
    assert PAPER.overflow(x).tolist() == [True, True, False, False, False, True, True]
    encoded = PAPER.encode(x)
    ends = torch.zeros(7, 51)
    ends[[0, 1, 2], 0] = 1.0
    ends[3, 25] = 1.0
    ends[[4, 5, 6], 50] = 1.0
    torch.testing.assert_close(encoded, ends, atol=1e-4, rtol=0)


def test_range_of_a_wider_support():
    wide = CategoricalSupport(-20.0, 1000.0, 101)
    x = torch.tensor([-20.0, 999.0, 314.0])
    assert not wide.overflow(x).any()
    torch.testing.assert_close(wide.decode(wide.encode(x).log()), x, rtol=2e-5, atol=1e-4)


def test_any_shape_goes_in_and_out():
    for shape in ((), (4,), (2, 3), (2, 0, 3)):
        x = torch.zeros(shape)
        assert SMALL.encode(x).shape == (*shape, 3)
        assert SMALL.decode(SMALL.encode(x)).shape == shape


def test_decode_is_differentiable_and_pushes_towards_the_larger_atom():
    logits = torch.zeros(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(SMALL.decode(logits + torch.tensor([0.0, 0.0, 0.1])), logits)
    assert gradient[0] < 0 < gradient[2]


def test_decode_keeps_fp32_under_autocast():
    torch.manual_seed(0)
    logits = 3 * torch.randn(64, 51)
    with torch.autocast("cpu", torch.bfloat16):
        decoded = PAPER.decode(logits)
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, PAPER.decode(logits))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 1.0, 51), r"low < high, got \(1.0, 1.0\)"),
        ((2.0, -2.0, 51), "low < high"),
        ((-1.0, 1.0, 1), "at least 2 bins, got 1"),
    ],
)
def test_wrong_ranges_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CategoricalSupport(*arguments)


def test_nan_is_encoded_as_nan_and_only_there():
    two_hot = PAPER.encode(torch.tensor([torch.nan, 1.5]))
    assert two_hot[0].isnan().any()
    torch.testing.assert_close(two_hot[1], PAPER.encode(torch.tensor(1.5)))
