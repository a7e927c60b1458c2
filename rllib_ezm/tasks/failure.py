"""What becomes of an environment that raises an exception, hangs, or ends its process."""

from __future__ import annotations

import traceback

ENV_FAILURES = "env_failures"
"""Info key: how often the environment failed in this step, or on the way to this first state."""

MAX_CONSECUTIVE_FAILURES = 10
"""Default of `max_consecutive_env_failures`, see `TaskSlot`."""

OLD_API = (
    "the environment seems to have the interface of gym before 0.26: reset() must return "
    "(observation, info) and step() (observation, reward, terminated, truncated, info). Change it, "
    "or give the task a factory that wraps it, as shimmy does"
)


class EnvironmentFailedError(RuntimeError):
    """An environment raised an exception, hung, or its first observation is of no use."""


class EnvironmentTimeoutError(BaseException):
    """Raised inside a call of an environment that takes too long, see `Watchdog`.

    No `Exception`, so that an environment that catches all of these does not go on hanging.
    """


ENVIRONMENT_ERRORS = (Exception, SystemExit, EnvironmentTimeoutError)
"""What an environment may raise: `exit()` and `sys.exit()` are calls that some make."""


def environment_failed(name: str, where: str, error: BaseException) -> EnvironmentFailedError:
    """The error to raise for one of `ENVIRONMENT_ERRORS`.

    Raises:
        SystemExit: The error itself, if Ray raised it because this process shall end (SIGTERM).
    """
    if hasattr(error, "ray_terminate_msg"):
        raise error
    return EnvironmentFailedError(describe_failure(name, where, error))


def describe_failure(name: str, where: str, error: BaseException) -> str:
    """One line: the task, what was called, the error and the place in the code it came from."""
    frames = list(traceback.extract_tb(error.__traceback__))
    if isinstance(error, EnvironmentTimeoutError):
        text = f"{name}: {where} {error}"
        frames = frames[:-1]  # the last one is of the watchdog
    else:
        text = f"{name}: {where} raised {type(error).__name__}: {error}"
    if "not enough values to unpack (expected 5, got 4)" in str(error):
        text += f"; {OLD_API}"
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})" if frames else text
