"""Protocols: whether a fall ends an episode. Scores of different protocols do not compare."""

from __future__ import annotations

PROTOCOLS = {"benchmark": "respect", "released": "ignore"}
"""`termination` setting of each protocol: "benchmark" plays by the tasks' own rules, "released" as
the authors' code, which drops terminations in training and evaluation."""


def protocol_name(termination: str) -> str:
    """Returns the protocol of a `termination` setting, "respect" or "ignore"."""
    return next(name for name, setting in PROTOCOLS.items() if setting == termination)
