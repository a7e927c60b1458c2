"""n-step value targets of one segment, one state at a time, in plain Python."""

from __future__ import annotations

from collections.abc import Sequence


def td_oracle(
    rewards: Sequence[float],
    values: Sequence[float],
    *,
    num_transitions: int,
    terminated: bool,
    discount: float,
    start: int,
    td_steps: int,
) -> float:
    """Follow the episode from state `start` for at most `td_steps` transitions, then bootstrap."""
    total, factor, state = 0.0, 1.0, start
    for _ in range(td_steps):
        if state == num_transitions:
            break
        total += factor * rewards[state]
        factor *= discount
        state += 1
    if state == num_transitions and terminated:
        return total
    return total + factor * values[state]
