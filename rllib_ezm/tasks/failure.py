"""What becomes of an environment that raises an exception."""

from __future__ import annotations

import traceback

ENV_FAILURES = "env_failures"
"""Info key: how often the environment raised in this step, or on the way to this first state."""

MAX_CONSECUTIVE_FAILURES = 10
"""Default of `max_consecutive_env_failures`, see `TaskSlot`."""


class EnvironmentFailedError(RuntimeError):
    """An environment raised an exception, or its first observation is of no use."""


def describe_failure(name: str, where: str, error: BaseException) -> str:
    """One line: the task, what was called, the error and the place in the code it came from."""
    text = f"{name}: {where} raised {type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})" if frames else text
