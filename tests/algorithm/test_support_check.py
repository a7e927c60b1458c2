from __future__ import annotations

import logging

import numpy as np
import pytest

from rllib_ezm.algorithm.support_check import SupportCheck, rounded_up


def messages(caplog: pytest.LogCaptureFixture, *chunks: tuple[list[float], bool]) -> list[str]:
    check = SupportCheck(
        ["stand", "run"], reward_support=(-10, 10), value_support=(-20, 20), discount=0.5
    )
    with caplog.at_level(logging.WARNING):
        for rewards, done in chunks:
            check.add(1, "a", np.float32(rewards), done=done)
    return [record.getMessage() for record in caplog.records]


def test_what_fits_is_not_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    # 10 + 5 + 2.5 + ... stays below 20, also over several chunks.
    assert messages(caplog, *[([10.0, 10.0], False)] * 8, ([10.0], True), ([-10.0], True)) == []


def test_a_reward_outside_warns_once_with_the_numbers_to_put(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (message,) = messages(caplog, ([1.0, -17.0], False), ([18.0], False))
    assert message == (
        "run: a reward of -17 is outside of reward_support=(-10, 10), so the model takes it for "
        "its end. Start with .world_model(reward_support=(-40, 40)), or scale the rewards."
    )


def test_a_return_outside_warns_although_each_reward_fits(caplog: pytest.LogCaptureFixture) -> None:
    check = SupportCheck(["a"], reward_support=(-10, 10), value_support=(-14, 14), discount=0.5)
    with caplog.at_level(logging.WARNING):
        check.add(0, "x", np.array([8.0]), done=False)
        check.add(0, "y", np.array([8.0, 8.0]), done=True)
        assert not caplog.records
        check.add(0, "x", np.array([8.0, 9.0]), done=True)  # 8 + 4 + 2.25
    (record,) = caplog.records
    assert "a: a discounted return of 14.25 is outside of value_support" in record.getMessage()
    assert ".world_model(value_support=(-30, 30))" in record.getMessage()


@pytest.mark.parametrize(("number", "expected"), [(34.0, 40.0), (6e5, 6e5), (1.1, 2.0), (99, 100)])
def test_bounds_have_one_digit(number: float, expected: float) -> None:
    assert rounded_up(number) == pytest.approx(expected)
