"""What a trial is doing between two results, for whoever waits for it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from rllib_ezm.utils.trial_folder import write_status

logger = logging.getLogger(__name__)

BUILDING = "building environments and networks"
WARM_UP = "warm-up"
COMPILING = "compiling"
FIRST_UPDATE = "first update"
TRAINING = "training"
EVALUATING = "evaluating"

INTERVAL_S = 1.0


class PhaseReporter:
    """Notes the phase of a training in its trial's folder: each new one, and once a second.

    Args:
        folder: The trial's folder; None for none, where nothing is noted.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._phase = ""
        self._next_at = 0.0

    def report(self, phase: str, **counts: int | str) -> None:
        """Note a phase.

        Args:
            phase: Its name, for the screen.
            **counts: `env_steps` and `updates` so far, `detail` of the phase.
        """
        now = time.monotonic()
        if self._folder is None or (phase == self._phase and now < self._next_at):
            return
        self._phase, self._next_at = phase, now + INTERVAL_S
        try:
            write_status(self._folder, {"phase": phase, **counts})
        except OSError as error:  # full or deleted: training goes on without
            logger.debug("The phase %r is not noted: %s", phase, error)
