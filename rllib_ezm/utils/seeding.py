"""Seeds of a process's global random generators, and of the many processes of one run."""

from __future__ import annotations

import random

import numpy as np
import torch


def derived_seed(seed: int, *path: int) -> int:
    """A seed in [0, 2^32) for one consumer of `seed`: independent for different paths."""
    return int(np.random.SeedSequence((seed, *path)).generate_state(1, np.uint32)[0])


def seed_generators(seed: int) -> None:
    """Seeds the global generators of Python, NumPy and torch (all devices) in this process.

    Everything random in acting and learning draws from them: search noise, the choice of value
    heads, random warm-up actions, and which samples are searched anew.

    Args:
        seed: In [0, 2^32).
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
