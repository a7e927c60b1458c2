from __future__ import annotations

from typing import Any

import pytest

from rllib_ezm.tasks.relatives import relatives
from rllib_ezm.utils.errors import UserError


def task(name: str, obs_dim: int = 24, action_dim: int = 6) -> dict[str, Any]:
    return {"name": name, "obs_dim": obs_dim, "action_dim": action_dim}


KNOWN = [
    task("dmc:walker-stand"),
    task("dmc:cheetah-run", 17),
    task("dmc:walker-walk"),
    task("gym:Pendulum-v1", 3, 1),
]


def test_the_mean_is_of_all_known_tasks() -> None:
    assert relatives(KNOWN, [task("a"), task("b")], "mean") == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize(
    ("new", "ids"),
    [
        (task("dmc:walker-run", 99, 9), [0, 2]),
        (task("dmc:hopper-hop", 3, 1), [3]),
        (task("mine", 17, 6), [1]),
        (task("dmc:humanoid-run", 67, 21), [0, 1, 2, 3]),
    ],
    ids=["of the same domain", "of the same dims", "without a domain", "like none"],
)
def test_the_nearest_tasks(new: dict[str, Any], ids: list[int]) -> None:
    assert relatives(KNOWN, [new], "nearest") == [ids]


def test_a_task_by_its_name() -> None:
    assert relatives(KNOWN, [task("a")], "dmc:walker-walk") == [[2]]


def test_another_rule_is_refused_with_what_may_have_been_meant() -> None:
    with pytest.raises(UserError, match=r"'nearst' must be .*Pendulum-v1\)\. Did you mean near"):
        relatives(KNOWN, [task("a")], "nearst")
