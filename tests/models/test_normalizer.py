from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_ezm.models.normalizer import ObservationNormalizer

MASK = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]])


def test_one_batch_by_hand():
    normalizer = ObservationNormalizer(torch.ones(1, 1))
    task_ids = torch.zeros(2, dtype=torch.long)
    normalizer.update(torch.tensor([[1.0], [5.0]]), task_ids)
    # Mean 3, biased variance ((-2)^2 + 2^2) / 2 = 4.
    assert (normalizer.mean.item(), normalizer.variance.item()) == (3.0, 4.0)
    assert normalizer.count.item() == 2
    # (5 - 3) / sqrt(4 + 1e-5) = 0.99999875.
    out = normalizer(torch.tensor([[5.0]]), task_ids[:1])
    assert out.item() == pytest.approx(0.99999875, abs=1e-7)


def test_two_batches_by_hand():
    normalizer = ObservationNormalizer(torch.ones(1, 1))
    normalizer.update(torch.tensor([[1.0], [5.0]]), torch.zeros(2, dtype=torch.long))
    normalizer.update(torch.tensor([[9.0]]), torch.zeros(1, dtype=torch.long))
    # 1, 5, 9: mean 5, variance (16 + 0 + 16) / 3.
    assert normalizer.mean.item() == pytest.approx(5.0)
    assert normalizer.variance.item() == pytest.approx(32 / 3)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 2**31 - 1))
def test_statistics_equal_numpy_over_all_owned_data(batch_sizes, seed):
    rng = np.random.default_rng(seed)
    normalizer = ObservationNormalizer(MASK)
    data, tasks = [], []
    for size in batch_sizes:
        task_ids = rng.integers(0, 3, size)
        observations = rng.normal(3.0, 5.0, (size, 4)).astype(np.float32)
        # Nobody may read what stands in padded dimensions.
        observations[MASK.numpy()[task_ids] == 0] = 1e3
        normalizer.update(torch.from_numpy(observations), torch.from_numpy(task_ids))
        data.append(observations)
        tasks.append(task_ids)
    all_data, owned = np.concatenate(data), MASK.numpy()[np.concatenate(tasks)] > 0
    for dim in range(4):
        mine = all_data[owned[:, dim], dim].astype(np.float64)
        assert normalizer.count[dim].item() == len(mine)
        expected = (mine.mean(), mine.var()) if len(mine) else (0.0, 1.0)
        found = (normalizer.mean[dim].item(), normalizer.variance[dim].item())
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_padded_dimensions_are_exactly_zero_whatever_was_seen_and_given():
    normalizer = ObservationNormalizer(MASK)
    task_ids = torch.tensor([0, 1, 2])
    given_values = torch.full((3, 4), 1e30)
    for _ in range(3):
        assert (normalizer(given_values, task_ids)[MASK == 0] == 0).all()
        normalizer.update(torch.randn(3, 4) + 7.0, task_ids)
    zero_padded = torch.randn(3, 4) * MASK
    # Dimension 3 has mean 7 by now: subtracting it from padding would leave an offset.
    assert (normalizer(zero_padded, task_ids)[MASK == 0] == 0).all()


def test_a_dimension_that_no_row_owns_keeps_its_statistics():
    normalizer = ObservationNormalizer(MASK)
    normalizer.update(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))
    before = {name: value.clone() for name, value in normalizer.named_buffers()}
    normalizer.update(torch.full((8, 4), 100.0), torch.full((8,), 1))
    for name in ("mean", "variance", "count"):
        after = getattr(normalizer, name)
        assert torch.equal(after[2:], before[name][2:])
        assert not torch.equal(after[:2], before[name][:2])
    assert normalizer.count.tolist() == [16, 16, 8, 8]


def test_forward_never_changes_the_statistics():
    normalizer = ObservationNormalizer(MASK).train()
    before = {name: value.clone() for name, value in normalizer.named_buffers()}
    normalizer(torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    for name, value in normalizer.named_buffers():
        assert torch.equal(value, before[name])


def test_outliers_are_clipped():
    normalizer = ObservationNormalizer(torch.ones(1, 2), clip=3.0)
    out = normalizer(torch.tensor([[50.0, -50.0]]), torch.zeros(1, dtype=torch.long))
    assert out.tolist() == [[3.0, -3.0]]


def test_a_constant_dimension_normalizes_to_zero():
    normalizer = ObservationNormalizer(torch.ones(1, 1))
    x, task_ids = torch.full((4, 1), 2.5), torch.zeros(4, dtype=torch.long)
    normalizer.update(x, task_ids)
    assert torch.equal(normalizer(x, task_ids), torch.zeros(4, 1))


def test_state_survives_a_round_trip():
    normalizer, other = ObservationNormalizer(MASK), ObservationNormalizer(MASK)
    normalizer.update(torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
    other.load_state_dict(normalizer.state_dict())
    for name in ("mean", "variance", "count"):
        assert torch.equal(getattr(other, name), getattr(normalizer, name))
