"""The exception for mistakes a user can fix, which the command line shows as one line."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user typed or wrote; the message names the fix.

    The command line prints the message as one line and exits with code 2. Any other exception is
    a fault of the program and keeps its traceback.
    """


class MissingPackageError(UserError, ImportError):
    """A package that is not installed; the message has the command that installs it."""
