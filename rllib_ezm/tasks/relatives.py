"""Which known tasks a new one is like: where what is learned of it may begin."""

from __future__ import annotations

from collections.abc import Callable

from rllib_ezm.tasks.layout import Layout, Task
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.suggestion import did_you_mean

MEAN, NEAREST = "mean", "nearest"

Likenesses = tuple[Callable[[Task], object], ...]
"""What tasks that are alike have in common, the closest likeness first."""


def relatives(stored: Layout, current: Layout, rule: str) -> list[list[int]]:
    """The known tasks that each task is like.

    Args:
        stored: The known tasks.
        current: Tasks, known or not.
        rule: "mean": all of them. "nearest": those of the same domain (the name up to its last
            "-", so "dmc:walker" of "dmc:walker-run"); without one, those of the same observation
            and action dims; without one, all. Or the name of one of them.

    Returns:
        For each task of `current` ids in `stored`, one or more.

    Raises:
        UserError: The rule is none of these.
    """
    names = [task["name"] for task in stored]
    if rule in names:
        return [[names.index(rule)] for _ in current]
    if rule not in (MEAN, NEAREST):
        raise UserError(
            f'new_task_embedding={rule!r} must be "{MEAN}", "{NEAREST}" or the name of a task of '
            f"the checkpoint ({', '.join(names)}).{did_you_mean(rule, [MEAN, NEAREST, *names])}"
        )
    likenesses: Likenesses = (_domain, _dims) if rule == NEAREST else ()
    return [_like(task, stored, likenesses) for task in current]


def _like(task: Task, stored: Layout, likenesses: Likenesses) -> list[int]:
    for likeness in likenesses:
        wanted = likeness(task)
        if found := [number for number, known in enumerate(stored) if likeness(known) == wanted]:
            return found
    return list(range(len(stored)))


def _domain(task: Task) -> str:
    """Of "dmc:walker-run" the part "dmc:walker"; of a name without "-", all of it."""
    name: str = task["name"]
    return name.rpartition("-")[0] or name


def _dims(task: Task) -> tuple[int, int]:
    return task["obs_dim"], task["action_dim"]
