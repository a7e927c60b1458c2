"""A warning before a folder of somebody else is opened in a way that executes what it holds."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)


def warn_of_other_owner(folder: Path) -> None:
    """Warn if pickles in a folder come from another user; once per folder.

    Nothing is said where the system has no users (Windows), or the folder does not exist.
    """
    if hasattr(os, "geteuid") and folder.exists():
        _warn(folder.resolve(), os.geteuid())


@functools.cache
def _warn(folder: Path, user: int) -> None:
    files = [folder, *folder.glob("**/*.pkl")]
    others = {file.stat().st_uid for file in files} - {user}
    if others:
        names = ", ".join(sorted(_name(other) for other in others))
        logger.warning(
            "%s belongs to another user (%s). RLlib keeps parts of it as pickles, and opening "
            "them runs whatever code they hold: go on only if you trust its origin. "
            "`rllib-ezm inspect` shows a checkpoint without running anything of it.",
            folder,
            names,
        )


def _name(user: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user id {user}"
