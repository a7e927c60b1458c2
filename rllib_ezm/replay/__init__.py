"""Per-task prioritised replay of contiguous numpy rings; needs neither Ray nor torch."""

from __future__ import annotations

from rllib_ezm.replay.chunk import EpisodeChunk
from rllib_ezm.replay.multitask import MultiTaskReplayBuffer
from rllib_ezm.replay.protocol import ReplayBuffer
from rllib_ezm.replay.sum_tree import SumTree

__all__ = ["EpisodeChunk", "MultiTaskReplayBuffer", "ReplayBuffer", "SumTree"]
