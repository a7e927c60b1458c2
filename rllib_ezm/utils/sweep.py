"""Named joint settings as ONE Tune grid, where a product of grids over their fields is not wanted.

Tune's `grid_search` varies one field, and several of them multiply. `sweep` takes whole configs by
name instead, so that a trial is one of them. A grid inside the configs still multiplies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.rllib.algorithms import AlgorithmConfig
from ray.tune.search.sample import Function

VARIANT = "variant"
"""Field of a trial's config with the name of its setting; the report names its curves by it."""


@dataclass(frozen=True)
class OfVariant:
    """The value of a field that goes with the trial's variant."""

    values: Mapping[str, Any]

    def __call__(self, config: Mapping[str, Any]) -> Any:
        """Pick the value for a trial's config."""
        return self.values[config[VARIANT]]


def sweep(configs: Mapping[str, AlgorithmConfig]) -> AlgorithmConfig:
    """One config that Tune expands to each of the given ones, for `tune.Tuner(param_space=...)`.

    Example:
        >>> full = EZMConfig().tasks(["dmc:walker-walk"])
        >>> config = sweep(
        ...     {
        ...         "full": full,
        ...         "no IER": full.copy(copy_frozen=False).replay(independent_replay=False),
        ...     }
        ... )

    Args:
        configs: Configs of one algorithm by name.

    Raises:
        ValueError: If there are none, or they are of different classes or algorithms.
    """
    if not configs:
        raise ValueError("sweep() needs at least one config.")
    first = next(iter(configs.values()))
    for name, config in configs.items():
        if (type(config), config.algo_class) != (type(first), first.algo_class):
            raise ValueError(
                f"sweep() needs configs of one algorithm, but {name!r} is of another one than "
                f"{next(iter(configs))!r}: write an experiment file for each algorithm."
            )
    fields = {name: vars(config) for name, config in configs.items()}
    swept_config = first.copy(copy_frozen=False)
    for field in dict.fromkeys(field for values in fields.values() for field in values):
        values = {name: of_config.get(field) for name, of_config in fields.items()}
        if any(value != getattr(first, field, None) for value in values.values()):
            setattr(swept_config, field, tune.sample_from(OfVariant(values)))
    setattr(swept_config, VARIANT, tune.grid_search(list(configs)))
    return swept_config


def configs_of(config: AlgorithmConfig) -> dict[str, AlgorithmConfig]:
    """The configs by name that `sweep` made this one of; empty for any other config."""
    names = getattr(config, VARIANT, None)
    if not isinstance(names, Mapping):
        return {}
    fields = {
        field: value.func.values
        for field, value in vars(config).items()
        if isinstance(value, Function) and isinstance(value.func, OfVariant)
    }
    configs = {}
    for name in names["grid_search"]:
        configs[name] = config.copy(copy_frozen=False)
        delattr(configs[name], VARIANT)
        for field, values in fields.items():
            setattr(configs[name], field, values[name])
    return configs
