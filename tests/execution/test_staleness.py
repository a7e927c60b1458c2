from __future__ import annotations

from rllib_ezm.execution.staleness import ACTING, PRIORITIES, TARGETS, WINDOW, Staleness


def test_quantiles_are_those_of_the_last_uses() -> None:
    staleness = Staleness()
    staleness.record(ACTING, 99)
    for age in [0, 1, 2, 3, 10] * (WINDOW // 5):
        staleness.record(ACTING, age)
    assert staleness.quantiles() == {ACTING: {"p50": 2.0, "p95": 10.0, "max": 10.0}}


def test_every_age_is_taken_once() -> None:
    staleness = Staleness()
    for kind, age in ((TARGETS, 4), (PRIORITIES, 1), (TARGETS, 2)):
        staleness.record(kind, age)
    assert staleness.pop_ages() == {TARGETS: [4, 2], PRIORITIES: [1]}
    staleness.record(PRIORITIES, 7)
    assert staleness.pop_ages() == {PRIORITIES: [7]}
    assert staleness.pop_ages() == {}
    assert staleness.quantiles()[TARGETS]["max"] == 4.0
