"""Experiment files: Python files with a module-level `config` and an optional `stop`."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.importing import LIBRARY_FIRST, standard_library_first

if TYPE_CHECKING:
    from ray.rllib.algorithms import Algorithm, AlgorithmConfig
    from ray.tune import Stopper

    Stop: TypeAlias = Mapping[str, float] | Callable[[str, Mapping[str, Any]], bool] | Stopper


@dataclass(frozen=True)
class ExperimentFile:
    """What an experiment file defines.

    Attributes:
        path: The file.
        config: Its module-level `config`.
        stop: Its module-level `stop`: a dict of result key to bound, a Tune `Stopper`, a function
            `(trial_id, result) -> bool`, or None where the file has none.
    """

    path: Path
    config: AlgorithmConfig
    stop: Stop | None

    @property
    def algorithm(self) -> type[Algorithm]:
        """The algorithm that the config configures."""
        return cast("type[Algorithm]", self.config.algo_class)

    def descriptions(self) -> list[str]:
        """What an EZMConfig says of itself; the lines of all configs of a sweep, none twice."""
        from rllib_ezm.utils.sweep import configs_of

        configs: list[Any] = [*configs_of(self.config).values()] or [self.config]
        return list(dict.fromkeys(c.describe() for c in configs if hasattr(c, "describe")))

    def overridden(self, settings: Sequence[str]) -> ExperimentFile:
        """The same experiment with settings changed, in every config of a sweep; see `override`.

        Raises:
            UserError: If a setting is malformed or unknown.
        """
        if not settings:
            return self
        from rllib_ezm.cli.overrides import override
        from rllib_ezm.utils.sweep import configs_of, sweep

        variants = {name: override(c, settings) for name, c in configs_of(self.config).items()}
        return replace(
            self, config=sweep(variants) if variants else override(self.config, settings)
        )

    def scaled_down(self) -> ExperimentFile:
        """The same experiment as a smoke run, see `rllib_ezm.cli.smoke`.

        Raises:
            UserError: If its config is not an EZMConfig.
        """
        from rllib_ezm.cli.smoke import SMOKE_STOP, scale_down
        from rllib_ezm.utils.sweep import configs_of, sweep

        variants = {name: scale_down(config) for name, config in configs_of(self.config).items()}
        config = sweep(variants) if variants else scale_down(self.config)
        return replace(self, config=config, stop=SMOKE_STOP)


@contextmanager
def running_as_script(path: Path) -> Iterator[None]:
    """Give a file the `sys.argv` and `sys.path` that `python FILE` would give it.

    So the file can import its neighbors (Ray passes the folder of `sys.argv[0]` on to its workers)
    and never sees the options of the command line that loads it. The standard library comes before
    the neighbors, here and in the workers, see `standard_library_first`.

    Args:
        path: The file.
    """
    argv, entries = sys.argv[:], sys.path[:]
    library_first = os.environ.get(LIBRARY_FIRST)
    sys.argv[:] = [str(path)]
    sys.path.insert(0, str(path.parent))
    os.environ[LIBRARY_FIRST] = "1"
    standard_library_first()
    try:
        yield
    finally:
        sys.argv[:] = argv
        sys.path[:] = entries
        if library_first is None:
            del os.environ[LIBRARY_FIRST]


def load_experiment_file(path: Path) -> ExperimentFile:
    """Run a Python file and take its `config` and `stop`.

    Args:
        path: The file.

    Raises:
        UserError: If the file is missing, fails, or has no `config` that can be trained.
    """
    path = path.expanduser().resolve()
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    if path.suffix != ".py":
        raise UserError(f"{path} is not a Python file (.py)")
    module = _execute(path)
    if not hasattr(module, "config"):
        raise UserError(
            f"{path} has no module-level variable `config`; add one, e.g. `config = EZMConfig()`"
        )
    return ExperimentFile(path, _check_config(path, module.config), _stop_of(path, module))


def parse_stop(text: str) -> dict[str, float]:
    """Read the JSON object of the option `--stop`.

    Args:
        text: JSON: result keys (nested ones joined by "/") to the value at which a trial stops.

    Raises:
        UserError: If it is not a JSON object of numbers.
    """
    example = """e.g. --stop '{"training_iteration": 10}'"""
    try:
        stop = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"--stop is not JSON ({error}): {text!r}; {example}") from error
    if not isinstance(stop, dict) or not stop:
        raise UserError(f"--stop must be a JSON object that is not empty: {text!r}; {example}")
    for key, value in stop.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"--stop: the bound of {key!r} must be a number, got {value!r}")
    return stop


def _execute(path: Path) -> ModuleType:
    """Import the file as a module that workers receive by value, since they cannot import it."""
    from ray import cloudpickle

    import rllib_ezm.tasks.registrations  # noqa: F401  (what the file registers comes after)

    name = f"experiment_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be imported as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    cloudpickle.register_pickle_by_value(module)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(_describe(error, path)) from error
    return module


def _describe(error: BaseException, path: Path) -> str:
    """Say where in the file it failed and why: `FILE:LINE: ErrorType: message`."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    where = f"{path}:{frames[-1].lineno}" if frames else str(path)
    return f"{where}: {type(error).__name__}: {error}"


def _check_config(path: Path, config: object) -> AlgorithmConfig:
    from ray.rllib.algorithms import AlgorithmConfig

    if not isinstance(config, AlgorithmConfig):
        raise UserError(
            f"{path}: `config` is of type {type(config).__name__}; it must be an RLlib "
            "AlgorithmConfig, e.g. `config = EZMConfig()`"
        )
    if config.algo_class is None:
        raise UserError(
            f"{path}: `config` names no algorithm; build it from an algorithm's own class, "
            "e.g. `EZMConfig()` or `PPOConfig()`"
        )
    return config


def _stop_of(path: Path, module: ModuleType) -> Stop | None:
    stop = getattr(module, "stop", None)
    if stop is None or isinstance(stop, Mapping) or callable(stop):
        return stop
    raise UserError(
        f"{path}: `stop` is of type {type(stop).__name__}; it must be a dict of result keys to "
        "bounds, a Tune Stopper, or a function of trial id and result"
    )
