"""The user's own registrations in Gymnasium, which live in one process and are needed in all."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

_BEFORE = dict(gym.registry)
"""As this module found it: Gymnasium's own, and what was registered before it was imported."""


def own_registrations() -> list[EnvSpec]:
    """What a new process does not have by importing Gymnasium.

    Without classes that another one of their module has replaced, as where a second training file
    was loaded: nobody can look them up any more.
    """
    return [spec for spec in gym.registry.values() if _is_own(spec) and not _is_replaced(spec)]


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


def _is_replaced(spec: EnvSpec) -> bool:
    creator = spec.entry_point or spec.vector_entry_point
    name = getattr(creator, "__qualname__", "<none>")
    module = sys.modules.get(getattr(creator, "__module__", None) or "")
    if module is None or "<" in name:  # of a function, a lambda, a module by hand: found by value
        return False
    try:
        return operator.attrgetter(name)(module) is not creator
    except AttributeError:
        return True
