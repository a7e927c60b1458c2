"""Which dimensions of a padded row are a task's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def prefix_mask(dims: Sequence[int]) -> torch.Tensor:
    """[T, max(dims)] float mask with ones in the first `dims[t]` places of row t."""
    return (torch.arange(max(dims)) < torch.tensor(dims)[:, None]).float()
