"""The target network: a moving average of the online network."""

from __future__ import annotations

import torch

from rllib_ezm.models.world_model import WorldModel


class TargetNetwork:
    """`target <- (1 - tau) target + tau online`, for weights and BatchNorm statistics.

    The observation normalizer is copied as it is: both networks must see the same input scale.

    Args:
        target: The network that follows.
        online: The network that learns.
        tau: Step of the moving average, in (0, 1]; 1 copies.
    """

    def __init__(self, target: WorldModel, online: WorldModel, tau: float) -> None:
        self.tau = tau
        self._moving: list[torch.Tensor] = []
        self._moving_sources: list[torch.Tensor] = []
        self._copied: list[tuple[torch.Tensor, torch.Tensor]] = []
        sources = online.state_dict()
        for name, value in target.state_dict().items():
            if name.startswith("normalizer.") or not value.is_floating_point():
                self._copied.append((value, sources[name]))
            else:
                self._moving.append(value)
                self._moving_sources.append(sources[name])

    @torch.no_grad()
    def follow(self) -> None:
        """Move the target one step."""
        torch._foreach_lerp_(self._moving, self._moving_sources, self.tau)
        for value, source in self._copied:
            value.copy_(source)
