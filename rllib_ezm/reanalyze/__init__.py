"""Reanalyze: fresh search targets for replayed segments."""

from rllib_ezm.reanalyze.reanalyzer import Reanalyzed, Reanalyzer

__all__ = ["Reanalyzed", "Reanalyzer"]
