"""The user's own registrations in Gymnasium, which live in one process and are needed in all."""

from __future__ import annotations

from collections.abc import Iterable

import cloudpickle
import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

_BEFORE = dict(gym.registry)
"""As this module found it: Gymnasium's own, and what was registered before it was imported."""


def own_registrations() -> list[EnvSpec]:
    """What a new process does not have by importing Gymnasium."""
    return [spec for spec in gym.registry.values() if _is_own(spec)]


def pack(specs: Iterable[EnvSpec]) -> list[bytes]:
    """Pickled, also where a class lives in a module that nobody can import, as a training file."""
    return [cloudpickle.dumps(spec) for spec in specs]


def unpack(packed: Iterable[bytes]) -> list[EnvSpec]:
    """What `pack` was given."""
    return [cloudpickle.loads(each) for each in packed]


def register_missing(specs: Iterable[EnvSpec]) -> None:
    """Register what another process had registered, unless this one has its own of that id."""
    for spec in specs:
        here = gym.registry.get(spec.id)
        if here is None or not _is_own(here):
            gym.registry[spec.id] = spec


def _is_own(spec: EnvSpec) -> bool:
    """RLlib registers for its own tests, and Gymnasium is in `_BEFORE`; the rest is the user's."""
    creator = spec.entry_point or spec.vector_entry_point
    module = creator if isinstance(creator, str) else getattr(creator, "__module__", None)
    if _BEFORE.get(spec.id) is not spec:
        return not (module or "").startswith("ray.")
    return not (module or "").startswith("gymnasium.")
