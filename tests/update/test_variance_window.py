from __future__ import annotations

import pytest
import torch

from rllib_ezm.update.variance_window import VarianceWindow


def updated(window, *values, task=0):
    variance = torch.tensor([values])
    window.update(variance, torch.ones_like(variance), torch.tensor([task]))
    return window.low[task].item(), window.high[task].item()


def test_window_by_hand():
    window = VarianceWindow(num_tasks=1, decay=0.9)
    assert updated(window, 2.0, 12.0) == (2.0, 12.0)
    # Spread 10: both ends come 0.1 * 10 closer, to 3 and 11, and 5 lies inside.
    assert updated(window, 5.0, 5.0) == pytest.approx((3.0, 11.0))
    # Spread 8: 3.8 and 10.2, then widened to the batch.
    assert updated(window, 1.0, 6.0) == pytest.approx((1.0, 10.2))


def test_alpha_by_hand():
    window = VarianceWindow(num_tasks=2, decay=0.9)
    updated(window, 2.0, 12.0, task=0)
    updated(window, 0.0, 1.0, task=1)
    variance = torch.tensor([[7.0, 0.0, 20.0], [0.25, 1.0, 0.0]])
    # The update of task 1 made task 0's window narrower: [3, 11]; (7 - 3) / 8 = 0.5.
    alpha = window.alpha(variance, torch.tensor([0, 1]))
    torch.testing.assert_close(alpha, torch.tensor([[0.5, 0.0, 1.0], [0.25, 1.0, 0.0]]))


def test_masked_entries_do_not_count():
    window = VarianceWindow(num_tasks=2, decay=0.9)
    variance = torch.tensor([[1.0, 99.0], [-99.0, 3.0], [50.0, 50.0]])
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    window.update(variance, mask, torch.tensor([0, 0, 1]))
    assert (window.low[0].item(), window.high[0].item()) == (1.0, 3.0)
    assert (window.low[1].item(), window.high[1].item()) == (torch.inf, -torch.inf)


def test_a_task_without_data_mixes_in_no_td_value_and_never_nan():
    window = VarianceWindow(num_tasks=2, decay=0.9)
    updated(window, 1.0, 2.0, task=0)
    alpha = window.alpha(torch.tensor([[0.0, 5.0]]), torch.tensor([1]))
    assert alpha.tolist() == [[0.0, 0.0]]


def test_an_old_extreme_fades():
    window = VarianceWindow(num_tasks=1, decay=0.9)
    updated(window, 0.0, 1000.0)
    for _ in range(200):
        low, high = updated(window, 1.0, 2.0)
    assert low == pytest.approx(1.0, abs=0.2)
    assert high == pytest.approx(2.0, abs=0.2)


def test_state_survives_a_round_trip():
    window, other = VarianceWindow(2, 0.9), VarianceWindow(2, 0.9)
    updated(window, 1.0, 4.0, task=1)
    other.load_state_dict(window.state_dict())
    assert torch.equal(other.low, window.low)
    assert torch.equal(other.high, window.high)
