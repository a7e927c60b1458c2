"""What a task is (`TaskSpec`) and how a name such as "dmc:walker-run" becomes one.

"dmc:<domain>-<task>", "hb:<robot>-<task>" and "gym:<id>" belong to families registered with
`register_prefix`; any other name is looked up among the tasks given to `register_task`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.wrappers import TimeLimit

from rllib_ezm.tasks.failure import environment_failed
from rllib_ezm.tasks.padding import task_spaces
from rllib_ezm.tasks.registrations import own_registrations, register_missing
from rllib_ezm.utils.errors import MissingPackageError
from rllib_ezm.utils.spaces import TaskSpaces
from rllib_ezm.utils.suggestion import did_you_mean

_REGISTRATIONS = "registrations"
"""Key of a pickled `TaskSpec`: the user's own registrations in Gymnasium."""


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """One task: a factory for its environment, and the constants of its score.

    A pickled spec takes along what this process has registered in Gymnasium, so that `make` finds
    it in other processes too, and where a checkpoint is opened.

    Attributes:
        name: Unique name, e.g. "dmc:walker-run". It becomes part of metric keys, so it must not
            contain "--".
        make: Factory of the bare environment, without time limit, action repeat or padding.
            Called as `make()`, or as `make(render_mode=...)` when a render mode is asked for. It
            must be picklable (cloudpickle) to reach Ray workers.
        random_score: Return of a random policy, in raw reward units (eq. 13, arXiv:2603.01452).
        success_score: Return that counts as success, in raw reward units (eq. 13).
        max_episode_steps: Time limit in simulator (environment) steps, counted BEFORE action
            repeat: 1000 steps with `action_repeat=2` are 500 decisions. None: the environment
            ends its own episodes.
        action_repeat: Simulator steps per decision.
        info_metrics: Keys of the environment's `info` to report beside the return, e.g.
            `("success",)`, kept as a tuple. The metric of an episode is the last value that one of
            its decisions reported; with action repeat, the `info` of a decision is that of its last
            simulator step. Values are numbers or booleans, arrays of one included. None, what is
            not finite and steps whose simulation broke down count as not reported, and an episode
            without any value is left out of the means. Any other value is a failure of the
            environment.

    Raises:
        ValueError: If a field is out of range.
    """

    name: str
    make: Callable[..., gym.Env[Any, Any]]
    random_score: float = 0.0
    success_score: float = 1.0
    max_episode_steps: int | None = None
    action_repeat: int = 1
    info_metrics: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Checks the fields."""
        if not self.name or "--" in self.name:
            raise ValueError(
                f'Task name {self.name!r} must be non-empty and must not contain "--".'
            )
        if not callable(self.make):
            raise ValueError(f"Task {self.name!r}: `make` must be callable, got {self.make!r}.")
        if not self.success_score > self.random_score:
            raise ValueError(
                f"Task {self.name!r}: success_score ({self.success_score}) must be greater than "
                f"random_score ({self.random_score})."
            )
        for field in ("action_repeat", "max_episode_steps"):
            value = getattr(self, field)
            if value is None and field == "max_episode_steps":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Task {self.name!r}: {field} must be an int >= 1, got {value!r}.")
        object.__setattr__(self, "info_metrics", self._checked_info_metrics())

    def _checked_info_metrics(self) -> tuple[str, ...]:
        """Returns `info_metrics` as a tuple."""
        names = self.info_metrics
        if (
            not isinstance(names, (list, tuple))
            or not all(isinstance(name, str) and name and "--" not in name for name in names)
            or len(set(names)) != len(names)
        ):
            raise ValueError(
                f"Task {self.name!r}: info_metrics must be a list of different keys of the "
                f'environment\'s info, non-empty strings without "--", got {names!r}.'
            )
        return tuple(names)

    def build(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """Returns a new environment with the time limit of `max_episode_steps` applied.

        Raises:
            ValueError: If `make` returns something else.
            EnvironmentFailedError: If `make` calls `exit()`.
            MissingPackageError: The environment needs a package that is not installed.
        """
        try:
            env: Any = self.make() if render_mode is None else self.make(render_mode=render_mode)
        except SystemExit as error:
            raise environment_failed(self.name, "building the environment", error) from error
        except (ImportError, gym.error.DependencyNotInstalled) as error:
            raise MissingPackageError(_missing_package_message(self.name, error)) from error
        if not isinstance(env, gym.Env):
            raise ValueError(
                f"Task {self.name!r}: `make` must return a gymnasium.Env, got "
                f"{type(env).__module__}.{type(env).__name__}. Derive it from gymnasium.Env, or "
                "wrap one of the older gym as shimmy does."
            )
        if self.max_episode_steps is None:
            return env
        return TimeLimit(env, self.max_episode_steps)

    @property
    def dims(self) -> tuple[int, int]:
        """The task's own flat observation and action dims, see `spaces`."""
        return self.spaces.obs_dim, self.spaces.action_dim

    @functools.cached_property
    def spaces(self) -> TaskSpaces:
        """The task's own spaces.

        The first access builds an environment and closes it at once. The result stays with this
        object and with its copies and pickles, so no process that gets a config with it builds an
        environment for its sizes. It is no part of equality, and `dataclasses.replace` drops it.

        Raises:
            ValueError: If the environment's spaces cannot be padded.
        """
        env = self.build()
        try:
            return task_spaces(env, self.name)
        finally:
            env.close()

    def __getstate__(self) -> dict[str, Any]:
        """The fields and the registrations that `make` may need."""
        return {**self.__dict__, _REGISTRATIONS: own_registrations()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Registers what is not registered here; checkpoints of earlier commits hold nothing."""
        state = dict(state)
        register_missing(state.pop(_REGISTRATIONS, ()))
        self.__dict__.update(state)

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskSpec:
        """Returns itself: a spec never changes, and copies of a config have equal tasks."""
        return self

    def normalized_score(self, episode_return: float) -> float:
        """Returns (R - random) / (success - random), not clipped (eq. 13, arXiv:2603.01452)."""
        return (episode_return - self.random_score) / (self.success_score - self.random_score)


@dataclasses.dataclass(frozen=True)
class _TaskFamily:
    """The tasks behind one prefix: see `register_prefix`."""

    resolve: Callable[..., TaskSpec | None]
    names: Callable[[], Iterable[str]]
    options: tuple[str, ...]


# Every field of a spec that a user may override, whatever the family of the task.
_COMMON_OPTIONS = (
    "random_score",
    "success_score",
    "max_episode_steps",
    "action_repeat",
    "info_metrics",
)
_FAMILIES: dict[str, _TaskFamily] = {}
_USER_TASKS: dict[str, TaskSpec] = {}


def register_prefix(
    prefix: str,
    resolve: Callable[..., TaskSpec | None],
    names: Callable[[], Iterable[str]],
    options: tuple[str, ...] = (),
) -> None:
    """Adds a family of tasks whose names start with "<prefix>:".

    Args:
        prefix: The part before the colon, e.g. "dmc".
        resolve: Called as `resolve(rest, **family_options)`, `rest` being the name after the
            colon. Returns the spec with the family's defaults, or None if there is no such task.
            Options common to all tasks are applied to the result afterwards.
        names: Returns the full names of all tasks known in advance, for near-match messages.
        options: Names of the extra options that `resolve` takes.

    Raises:
        ValueError: If the prefix is malformed or taken.
    """
    if not prefix or ":" in prefix:
        raise ValueError(f"Task prefix {prefix!r} must be non-empty and without a colon.")
    if prefix in _FAMILIES:
        raise ValueError(f"Task prefix {prefix!r} is already registered.")
    _FAMILIES[prefix] = _TaskFamily(resolve, names, options)


def register_task(
    name: str,
    make: Callable[..., gym.Env[Any, Any]],
    *,
    random_score: float = 0.0,
    success_score: float = 1.0,
    max_episode_steps: int | None = None,
    action_repeat: int = 1,
    info_metrics: Sequence[str] = (),
    overwrite: bool = False,
) -> TaskSpec:
    """Registers your own task, so that `name` works wherever a task name does.

    The registry lives in this process. Ray workers get the resolved `TaskSpec`, not the name.

    Args:
        name: A name without a registered prefix such as "dmc:" or "gym:".
        make: See `TaskSpec.make`.
        random_score: See `TaskSpec`. The defaults 0 and 1 make the score the raw return.
        success_score: See `TaskSpec`.
        max_episode_steps: See `TaskSpec`; simulator steps, before action repeat.
        action_repeat: See `TaskSpec`.
        info_metrics: See `TaskSpec`.
        overwrite: Replace a task registered before under this name.

    Returns:
        The spec.

    Raises:
        ValueError: If the name is taken, or belongs to a prefix, or a field is out of range.
    """
    prefix = name.partition(":")[0]
    if ":" in name and prefix in _FAMILIES:
        raise ValueError(f'Task name {name!r}: the prefix "{prefix}:" is reserved; use another.')
    if name in _USER_TASKS and not overwrite:
        raise ValueError(f"Task {name!r} is already registered; pass overwrite=True to replace it.")
    spec = TaskSpec(
        name=name,
        make=make,
        random_score=random_score,
        success_score=success_score,
        max_episode_steps=max_episode_steps,
        action_repeat=action_repeat,
        info_metrics=info_metrics,
    )
    _USER_TASKS[name] = spec
    return spec


def resolve_task(task: str | TaskSpec | Mapping[str, Any], **options: Any) -> TaskSpec:
    """Returns the spec of a task given by name, by spec, or by a dict with "name" and options.

    Options override the task's defaults: `random_score`, `success_score`, `max_episode_steps`
    (simulator steps, before action repeat), `action_repeat`, `info_metrics`, and those of the
    family (gym: `env_kwargs`). An option that is None keeps the default. Keyword options win over
    those in the dict.

    Args:
        task: "dmc:<domain>-<task>", "hb:<robot>-<task>", "gym:<id>", the name of a registered
            task, a `TaskSpec`, or e.g. `{"name": "dmc:walker-run", "action_repeat": 2}`.
        **options: The options above.

    Raises:
        TypeError: If `task` is none of these types.
        ValueError: If the name or an option is unknown; the message lists near matches.
    """
    if isinstance(task, Mapping):
        if not isinstance(task.get("name"), str):
            raise ValueError(f'A task given as a dict needs a "name" (a string), got {dict(task)}.')
        options = {**{key: task[key] for key in task if key != "name"}, **options}
        task = task["name"]
    options = {key: value for key, value in options.items() if value is not None}
    common = {key: options.pop(key) for key in _COMMON_OPTIONS if key in options}
    if isinstance(task, TaskSpec):
        _refuse_unknown_options(task.name, options, ())
        spec = task
    elif isinstance(task, str):
        spec = _resolve_name(task, options)
    else:
        raise TypeError(f"A task is a name, a dict or a TaskSpec, got {type(task).__name__}.")
    return dataclasses.replace(spec, **common) if common else spec


def _resolve_name(name: str, family_options: Mapping[str, Any]) -> TaskSpec:
    """Looks a name up among the user's tasks, then in the family of its prefix."""
    prefix, _, rest = name.partition(":")
    family = _FAMILIES.get(prefix) if rest else None
    _refuse_unknown_options(name, family_options, family.options if family else ())
    spec = _USER_TASKS.get(name)
    if spec is None and family is not None:
        spec = family.resolve(rest, **family_options)
    if spec is None:
        raise ValueError(_unknown_name_message(name))
    return spec


def _refuse_unknown_options(
    name: str, options: Mapping[str, Any], family_options: tuple[str, ...]
) -> None:
    """Raises on the first option that neither all tasks nor this family knows."""
    allowed = (*_COMMON_OPTIONS, *family_options)
    for option in options:
        if option not in family_options:
            raise ValueError(
                f"Task {name!r} has no option {option!r}.{did_you_mean(option, allowed)} "
                f"Its options: {', '.join(allowed)}."
            )


def _unknown_name_message(name: str) -> str:
    """Says which names and prefixes there are."""
    prefix = name.partition(":")[0]
    families = [_FAMILIES[prefix]] if prefix in _FAMILIES else list(_FAMILIES.values())
    known = [*_USER_TASKS, *(known for family in families for known in family.names())]
    return (
        f"Unknown task {name!r}.{did_you_mean(name, known)} "
        f"Known prefixes: {', '.join(f'{p}:' for p in sorted(_FAMILIES))} "
        f"(dmc:<domain>-<task>, hb:<robot>-<task>, gym:<id>); "
        f"your own tasks: {', '.join(_USER_TASKS) or 'none'}. "
        "Add one with rllib_ezm.tasks.register_task(name, make)."
    )


def _missing_package_message(task: str, error: Exception) -> str:
    """Says what to install; messages that name a command of pip are passed on."""
    text = str(error)
    if "pip install" in text:
        return f"Task {task!r}: {text}"
    package = getattr(error, "name", None)
    command = f": pip install {package.partition('.')[0]}" if package else ""
    return f"Task {task!r} needs a package that is not installed ({text}){command}"
