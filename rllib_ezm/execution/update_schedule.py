"""When updates are due: the replay ratio, enforced."""

from __future__ import annotations

from typing import Any


class UpdateSchedule:
    """Counts updates, and allows `replay_ratio` of them per env step from the start of learning.

    Args:
        replay_ratio: Updates per env step (decision, summed over the tasks).
        num_steps_before_learning: Env steps in the replay buffer before the first update.
    """

    def __init__(self, replay_ratio: float, num_steps_before_learning: int) -> None:
        self.replay_ratio = replay_ratio
        self.num_steps_before_learning = num_steps_before_learning
        self.num_updates = 0
        self.learning_start: int | None = None
        """Env step at which learning started, or the ratio changed; None before that."""
        self.updates_at_learning_start = 0
        self.waiting_since = 0

    def num_due(self, env_steps: int) -> int:
        """Updates that may have been made after this many env steps."""
        if self.learning_start is None:
            return self.num_updates
        learned_from = env_steps - self.learning_start
        return self.updates_at_learning_start + int(self.replay_ratio * learned_from)

    def start_if_ready(self, env_steps: int) -> None:
        """Start learning once enough env steps are collected."""
        waited = env_steps - self.waiting_since
        if self.learning_start is None and waited >= self.num_steps_before_learning:
            self.learning_start = env_steps
            self.updates_at_learning_start = self.num_updates

    def wait_again(self, env_steps: int) -> None:
        """Collect `num_steps_before_learning` new env steps before the next update."""
        self.learning_start = None
        self.waiting_since = env_steps

    def measured_ratio(self, env_steps: int) -> float:
        """Updates per env step since learning started, or since the ratio changed."""
        learned_from = env_steps - (self.learning_start or 0)
        return (self.num_updates - self.updates_at_learning_start) / max(learned_from, 1)

    def get_state(self) -> dict[str, Any]:
        """All counters, as plain Python objects."""
        return {
            "replay_ratio": self.replay_ratio,
            "num_updates": self.num_updates,
            "learning_start": self.learning_start,
            "updates_at_learning_start": self.updates_at_learning_start,
            "waiting_since": self.waiting_since,
        }

    def set_state(self, state: dict[str, Any], env_steps: int) -> None:
        """Restore the result of `get_state`.

        Updates that were due by then stay due; another ratio holds for the env steps that follow.

        Args:
            state: Of a schedule with any ratio.
            env_steps: Env steps collected when the state was made.
        """
        self.num_updates = state["num_updates"]
        self.learning_start = state["learning_start"]
        self.updates_at_learning_start = state["updates_at_learning_start"]
        self.waiting_since = state["waiting_since"]
        stored_ratio = state.get("replay_ratio", self.replay_ratio)
        if self.learning_start is not None and stored_ratio != self.replay_ratio:
            learned_from = env_steps - self.learning_start
            self.updates_at_learning_start += int(stored_ratio * learned_from)
            self.learning_start = env_steps
