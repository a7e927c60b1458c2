from __future__ import annotations

import numpy as np
import torch

from rllib_ezm.execution.weight_transfer import from_transfer_dtype, to_transfer_dtype


def test_matrices_travel_in_half_the_bytes_and_arrive_rounded_to_bfloat16() -> None:
    matrix = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    state = {
        "net": {"weight": matrix, "bias": matrix[0], "count": np.array(3)},
        "seq_no": 7,
        "ids": np.arange(6).reshape(2, 3),
    }
    sent = to_transfer_dtype(state)
    assert sent["net"]["weight"].bits.nbytes == matrix.nbytes // 2
    arrived = from_transfer_dtype(sent)
    assert set(arrived) == set(state)
    expected = torch.as_tensor(matrix).bfloat16().float().numpy()
    np.testing.assert_array_equal(arrived["net"]["weight"], expected)
    assert arrived["net"]["weight"].dtype == np.float32
    assert abs(expected - matrix).max() > 0, "rounded"
    for name in ("bias", "count"):
        np.testing.assert_array_equal(arrived["net"][name], state["net"][name])
    np.testing.assert_array_equal(arrived["ids"], state["ids"])
    assert arrived["seq_no"] == 7


def test_rounding_is_to_nearest_even_and_keeps_what_is_not_finite() -> None:
    special = np.array([[1.0, 1.00390625, 1.01171875, np.inf, -np.inf, 0.0]], dtype=np.float32)
    arrived = from_transfer_dtype(to_transfer_dtype(special))
    np.testing.assert_array_equal(arrived, [[1.0, 1.0, 1.015625, np.inf, -np.inf, 0.0]])
    assert np.isnan(
        from_transfer_dtype(to_transfer_dtype(np.full((1, 1), np.nan, np.float32)))
    ).all()
