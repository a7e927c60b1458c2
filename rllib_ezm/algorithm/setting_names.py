"""What to say of a name that is no setting: where it is set, or which name was meant."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from rllib_ezm.algorithm.rllib_settings import SETTERS, UNREAD, is_deprecated
from rllib_ezm.algorithm.setters import GROUPS
from rllib_ezm.utils.settings import settings_of
from rllib_ezm.utils.suggestion import did_you_mean

TASKS = "tasks"
"""The setter of the tasks."""

OF_OTHERS = MappingProxyType(
    {
        "learning_rate": "lr",
        "discount": "gamma",
        "batch_size": "train_batch_size_per_learner",
        "buffer_size": "capacity_per_task",
        "replay_buffer_config": "capacity_per_task",
        "training_intensity": "replay_ratio",
        "training_ratio": "replay_ratio",
        "utd_ratio": "replay_ratio",
        "n_step": "td_steps",
        "tau": "target_tau",
        "target_network_update_freq": "target_period",
        "model_size": "latent_dim",
        "num_workers": "num_env_runners",
        "num_rollout_workers": "num_env_runners",
        "num_learner_workers": "num_learners",
    }
)
"""Name of a setting in other algorithms, or formerly in RLlib -> its name here."""


class UnknownSettingError(AttributeError, ValueError):
    """A name that is no setting."""


def setter_of(config_class: type[Any]) -> Mapping[str, str]:
    """Name of each setting that is read -> the method of the config that sets it."""
    own = own_settings()
    return MappingProxyType(
        {
            name: setter
            for setter in reversed((*SETTERS, *GROUPS, TASKS))  # RLlib has some in two
            for name in arguments(getattr(config_class, setter))
            if setter == TASKS or name in own or not (name in UNREAD or is_deprecated(name))
        }
    )


@functools.cache
def own_settings() -> frozenset[str]:
    """Names of EZ-M's own settings."""
    return frozenset(name for group in GROUPS.values() for name in settings_of(group))


def arguments(setter: Callable[..., Any]) -> list[str]:
    """The arguments of a setter by name, without `**options`."""
    parameters = list(inspect.signature(setter).parameters.values())[1:]
    return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]


def advice(name: str, config_class: type[Any]) -> str:
    """Where a name is set or which one was meant, after a space; or nothing."""
    known = setter_of(config_class)
    if name in known:
        return f" It is set by .{known[name]}({name}=...)."
    if name in OF_OTHERS:
        here = OF_OTHERS[name]
        return f" Here it is .{known[here]}({here}=...)."
    return did_you_mean(name, known)


def unknown_setting(name: str, config_class: type[Any]) -> UnknownSettingError:
    """The error for a name that is no setting."""
    return UnknownSettingError(f"EZM has no setting {name!r}.{advice(name, config_class)}")


def check_names(method: str, names: Iterable[str], config_class: type[Any]) -> None:
    """Raise TypeError for a name that a setter does not have."""
    known = arguments(getattr(config_class, method))
    for name in names:
        if name not in known or (is_deprecated(name) and name not in own_settings()):
            raise TypeError(
                f"{method}() got an unexpected keyword argument {name!r}."
                f"{advice(name, config_class)}"
            )


def checks_names(config_class: type[Any]) -> type[Any]:
    """Have the setters of RLlib that a config class inherits say which name was meant."""
    for name in SETTERS:
        if name not in vars(config_class):
            setattr(config_class, name, _checked(getattr(config_class, name)))
    return config_class


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def setter(config: Any, *args: Any, **kwargs: Any) -> Any:
        check_names(method.__name__, kwargs, type(config))
        return method(config, *args, **kwargs)

    return setter
