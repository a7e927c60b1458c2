"""EZMConfig: every setting of EZ-M, fluent and validated."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.connectors.common.flatten_observations import FlattenObservations
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.annotations import override
from ray.tune import Checkpoint

from rllib_ezm.algorithm.cross_task import CrossTaskExploration
from rllib_ezm.algorithm.env_runner import ENV_NAME, MultiTaskEnvRunner
from rllib_ezm.algorithm.evaluation import evaluate_per_task
from rllib_ezm.algorithm.rllib_settings import RLlibSettings
from rllib_ezm.algorithm.setters import (
    GROUPS,
    TrainingArguments,
    current_names,
    current_value,
    renamed,
    sets,
    warn_renamed_value,
)
from rllib_ezm.algorithm.setting_names import check_names, checks_names, unknown_setting
from rllib_ezm.algorithm.validation import check_settings, check_values
from rllib_ezm.algorithm.warm_start import DIMS, check_warm_start, fit_dynamics
from rllib_ezm.execution.settings import ExecutionSettings
from rllib_ezm.models.settings import WorldModelSettings
from rllib_ezm.replay.checks import column_bytes, required_bytes
from rllib_ezm.replay.settings import ReplaySettings
from rllib_ezm.search.settings import PlanningSettings
from rllib_ezm.tasks.failure import MAX_CONSECUTIVE_FAILURES
from rllib_ezm.tasks.multitask import TaskSet, task_set
from rllib_ezm.tasks.spec import TaskSpec, resolve_task
from rllib_ezm.tasks.watchdog import ENV_STEP_TIMEOUT_S
from rllib_ezm.update.settings import TrainingSettings
from rllib_ezm.utils.ray_internals import OpenConfig
from rllib_ezm.utils.settings import defaults, settings_of

GroupT = TypeVar("GroupT")

RLLIB_TRAINING = inspect.signature(AlgorithmConfig.training).parameters.keys()
"""Names of RLlib's own training settings."""

SET_BY_RLLIB = ("class", "worker_index")
"""Attributes that RLlib gives to a config that was pickled or sent to another process."""

if TYPE_CHECKING:

    class _Attributes(
        TrainingSettings, WorldModelSettings, PlanningSettings, ReplaySettings, ExecutionSettings
    ):
        """The types of the attributes that `EZMConfig.__init__` sets."""

        def __init__(self, **settings: Any) -> None: ...

else:
    _Attributes = object


class _Sealed(ABCMeta):
    """Marks a config once it is built: from then on, only its own attributes can be set."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        config = super().__call__(*args, **kwargs)
        vars(config)["_is_sealed"] = True
        return config


@checks_names
class EZMConfig(OpenConfig, _Attributes, metaclass=_Sealed):
    """Configuration of EZ-M (arXiv:2603.01452).

    The defaults are the paper's values where it states them;
    `docs/explanation/deviations.md` lists every place where they are not.

    Example:
        >>> config = (
        ...     EZMConfig()
        ...     .tasks(["dmc:walker-stand", "dmc:walker-walk"], action_repeat=2)
        ...     .training(replay_ratio=0.5, train_batch_size_per_learner=128)
        ... )
        >>> algo = config.build_algo()
        >>> algo.train()
    """

    variant: Any = None
    """Label of a trial of `sweep`, for reports; no setting."""

    def __init__(self, algo_class: type | None = None) -> None:
        from rllib_ezm.algorithm.ezm import EZM

        super().__init__(algo_class=algo_class or EZM)
        self.env = ENV_NAME
        self.tasks([])
        self.warm_start_options: dict[str, Any] | None = None
        self.env_runner_cls = MultiTaskEnvRunner
        for name, value in defaults(RLlibSettings).items():
            setattr(self, name, value)
        self.evaluation_config = AlgorithmConfig.overrides(explore=False)
        self.custom_evaluation_function = evaluate_per_task

        self.grad_clip_by = "global_norm"
        for name, group in GROUPS.items():
            getattr(self, name)(**defaults(group))

    def tasks(
        self,
        tasks: Sequence[str | Mapping[str, Any] | TaskSpec],
        *,
        envs_per_task: int = 1,
        num_env_processes: int = 0,
        termination: str = "respect",
        max_consecutive_env_failures: int = MAX_CONSECUTIVE_FAILURES,
        env_step_timeout_s: float | None = ENV_STEP_TIMEOUT_S,
        **options: Any,
    ) -> EZMConfig:
        """Choose the tasks to train on at once; a task's id is its position.

        Args:
            tasks: Names ("dmc:walker-run", "gym:Pendulum-v1", a registered name), dicts of a name
                and options, or specs.
            envs_per_task: Copies of each task's environment, distributed over the env runners.
            num_env_processes: Processes of each env runner that step its environments at the same
                time, while one search serves all of them; 0: the env runner steps them itself, one
                after the other. Each takes a core: see `num_cpus_per_env_runner`.
            termination: "respect", or "ignore" to drop terminations as the released code does.
            max_consecutive_env_failures: An environment that raises an exception is built again and
                its episode truncated; so many times in a row, for one task in one slot, end the
                training with an error. 1: at once.
            env_step_timeout_s: Seconds that one step or reset of an environment may take; building
                one may take five times as long. Longer ones count as failures. None: no limit.
            **options: Options of every task given by name, e.g. `action_repeat=2`.

        Raises:
            ValueError: If a task is unknown or an option does not exist.
        """
        specs: Any = tasks
        if not isinstance(tasks, Mapping):
            specs = [
                task if isinstance(task, TaskSpec) else resolve_task(task, **options)
                for task in tasks
            ]
        self.env_config = {
            "tasks": specs,
            "termination": termination,
            "envs_per_task": envs_per_task,
            "num_env_processes": num_env_processes,
            "max_consecutive_env_failures": max_consecutive_env_failures,
            "env_step_timeout_s": env_step_timeout_s,
        }
        return self

    @override(AlgorithmConfig)
    @sets(TrainingArguments)
    def training(self, **settings: Any) -> EZMConfig:
        """Set the settings of training; RLlib's other training settings are passed on to it."""
        check_names("training", settings, type(self))
        own = settings_of(TrainingSettings).keys() - RLLIB_TRAINING
        super().training(**{name: settings[name] for name in settings.keys() - own})
        return self._set("training", {name: settings[name] for name in settings.keys() & own})

    @sets(WorldModelSettings)
    def world_model(self, **settings: Any) -> EZMConfig:
        """Set the sizes of the world model (Table 4)."""
        return self._set("world_model", settings)

    @sets(PlanningSettings)
    def search(self, **settings: Any) -> EZMConfig:
        """Set the search (section 3.2)."""
        return self._set("search", settings)

    @sets(ReplaySettings)
    def replay(self, **settings: Any) -> EZMConfig:
        """Set the replay buffer (section 4.2)."""
        return self._set("replay", settings)

    @sets(ExecutionSettings)
    def asynchrony(self, **settings: Any) -> EZMConfig:
        """Collect, reanalyze and learn at the same time (Figure 2(D)) or one after the other.

        The replay ratio is enforced in both. Asynchronous training needs processes:
        `.env_runners(num_env_runners=...)` and `.learners(num_learners=...)` of at least 1.
        """
        return self._set("asynchrony", settings)

    def warm_start(
        self,
        checkpoint: Any = NotProvided,
        *,
        new_task_embedding: Any = NotProvided,
        freeze: Any = NotProvided,
        replay: Any = NotProvided,
    ) -> EZMConfig:
        """Begin a new run with what another one has learned, also for tasks that it did not know.

        The tasks of `.tasks()` may be others than those of the checkpoint, in any order, and wider;
        those with the same name are the same task. Counters, optimizer and episodes begin anew. A
        run that goes on from a checkpoint of its own has no use for this one. See
        `docs/how-to/add-a-task.md`.

        Args:
            checkpoint: Folder of a checkpoint of EZ-M, on a local or shared disk. Its `world_model`
                settings must be those of this config. None: begin with nothing.
            new_task_embedding: Where the embedding of a new task begins: "mean" of those of all
                known tasks (the default), of the "nearest" ones (of the same domain, else of the
                same dims), or that of a known task, by its name.
            freeze: Sub-networks that do not learn: `frozen_networks` of `.training()`.
            replay: "keep" (the default): the replay buffer begins with what the checkpoint's has of
                the tasks that are known; "empty": with nothing.
        """
        if isinstance(checkpoint, Checkpoint):
            checkpoint = checkpoint.path
        if isinstance(checkpoint, str | Path):
            checkpoint = str(Path(checkpoint).expanduser().absolute())
        given = {
            "checkpoint": checkpoint,
            "new_task_embedding": new_task_embedding,
            "replay": replay,
        }
        changes = {name: value for name, value in given.items() if value is not NotProvided}
        options = {**(self.warm_start_options or {}), **changes}
        self.warm_start_options = None if options.get("checkpoint", "") is None else options
        if freeze is not NotProvided:
            self.training(frozen_networks=freeze)
        if "checkpoint" in changes:
            setattr(self, DIMS, None)
            fit_dynamics(self)
        return self

    weights_on_the_wire = renamed("weights_on_the_wire")

    def group(self, kind: type[GroupT]) -> GroupT:
        """The present values of a group of settings.

        Raises:
            ValueError: If one of them is out of range.
        """
        values = {name: current_value(name, getattr(self, name)) for name in settings_of(kind)}
        return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})

    @override(AlgorithmConfig)
    def build_env_to_module_connector(
        self, env: Any = None, spaces: Any = None, device: Any = None
    ) -> ConnectorV2:
        pipeline: Any = super().build_env_to_module_connector(env, spaces, device)
        for connector in pipeline.connectors:
            if isinstance(connector, (FlattenObservations, MeanStdFilter)):
                raise ValueError(
                    f"{type(connector).__name__} is not for EZM, which takes observations as a "
                    "Dict with the task's id and normalizes them itself: leave it out."
                )
        if self.cross_task_probability:
            pipeline.prepend(CrossTaskExploration(self.get_task_set(), self.cross_task_probability))
        return pipeline

    def paper(self) -> EZMConfig:
        """Every choice of ALGORITHM.md's "paper" column at once."""
        self.training(value_mixing="variance", entropy_coeff=0.0)
        self.search(use_gumbel_noise=True, root_prior="policy", value_reduction="mean")
        return self

    def released(self) -> EZMConfig:
        """Every choice of the released code that has a switch, at once; call it after `tasks()`.

        The released entropy term is 5e-3 times the padded action dim, with the sign that minimises.
        Not included: its learning-rate drop (x0.1 at 90 % of training; `lr` takes a schedule) and
        its training episodes of 500 steps (`max_episode_steps` of the tasks).
        Not reproduced, because they are defects or hardware-bound: mislabelled warm-up actions,
        dropped last blocks, targets from unrelated random initialisations, noise in dead actions.
        """
        self.env_config = {**self.env_config, "termination": "ignore"}
        action_dim = self.get_task_set().action_dim
        self.training(value_mixing="age", entropy_coeff=-5e-3 * action_dim, squashed_entropy=False)
        self.search(
            use_gumbel_noise=False,
            root_prior="uniform",
            value_reduction="random_pair",
            value_clip_min=0.0,
            wide_candidates_at_eval=True,
        )
        return self.evaluation(evaluation_duration=1)

    def get_task_set(self) -> TaskSet:
        """The resolved tasks with their padded sizes.

        The first call builds an environment of each task, see `TaskSpec.dims`. Tasks that
        `env_config` has by name are replaced there by their specs, so that the sizes travel on.

        Raises:
            ValueError: If no tasks are set.
        """
        tasks = task_set(self.env_config["tasks"])
        self.env_config["tasks"] = list(tasks.specs)
        return tasks

    def replay_bytes(self) -> int:
        """Memory of the full replay buffer [bytes]."""
        tasks = self.get_task_set()
        return required_bytes(
            tasks.num_tasks,
            self.capacity_per_task,
            tasks.obs_dim,
            tasks.action_dim,
            self.independent_replay,
            self.replay_dtype,
        )

    def replay_bytes_on_gpu(self) -> int:
        """The part of `replay_bytes` that the learner's GPU holds [bytes]."""
        if self.replay_device == "host" or not self.num_gpus_per_learner:
            return 0
        tasks = self.get_task_set()
        return column_bytes(
            tasks.num_tasks,
            self.capacity_per_task,
            tasks.obs_dim,
            tasks.action_dim,
            self.replay_dtype,
        )

    def describe(self) -> str:
        """One line for the start of a run: the tasks, and replay memory against its budget."""
        tasks = self.get_task_set()
        needed = self.replay_bytes()
        budget = (
            "no limit"
            if self.max_replay_bytes is None
            else f"{self.max_replay_bytes / 2**30:.1f} GiB"
        )
        gpu = self.replay_bytes_on_gpu()
        on_gpu = f"; {gpu / 2**30:.2f} GiB of it on the GPU" if gpu else ""
        endless = [spec.name for spec in tasks.specs if spec.max_episode_steps is None]
        reminder = f"; without max_episode_steps: {', '.join(endless)}" if endless else ""
        return (
            f"{tasks.num_tasks} tasks (padded to {tasks.obs_dim} observation and "
            f"{tasks.action_dim} action dims); replay of {self.capacity_per_task:,} observations "
            f"per task, up to {needed / 2**30:.2f} GiB (budget: {budget}{on_gpu}){reminder}"
        )

    @override(AlgorithmConfig)
    def validate(self) -> None:
        check_values(self, self.refuse)
        super().validate()
        check_settings(self, self.refuse)
        check_warm_start(self, self.refuse)

    @override(AlgorithmConfig)
    def __setattr__(self, key: str, value: Any) -> None:
        """Refuses the name of an attribute that does not exist, except for private ones.

        A value that has another name now is replaced by it, and warns.
        """
        known = key in vars(self) or hasattr(type(self), key) or key in SET_BY_RLLIB
        if not known and not key.startswith("_") and vars(self).get("_is_sealed"):
            raise unknown_setting(key, type(self))
        warn_renamed_value(key, value)
        super().__setattr__(key, current_value(key, value))

    @override(AlgorithmConfig)
    def get_default_rl_module_spec(self) -> RLModuleSpec:
        from rllib_ezm.algorithm.rl_module import EZMTorchRLModule

        return RLModuleSpec(module_class=EZMTorchRLModule)

    @override(AlgorithmConfig)
    def get_default_learner_class(self) -> type:
        from rllib_ezm.algorithm.learner import EZMTorchLearner

        return EZMTorchLearner

    @override(OpenConfig)
    def model_settings(self) -> dict[str, Any]:
        tasks = self.get_task_set()
        training, planning = self.group(TrainingSettings), self.group(PlanningSettings)
        search = asdict(planning.training_search(self.gamma))
        return {
            **asdict(planning),
            "num_random_steps": training.num_random_steps,
            "variance_window_decay": training.variance_window_decay,
            "policy_loss": training.policy_loss,
            "obs_dims": list(tasks.obs_dims),
            "action_dims": list(tasks.action_dims),
            "world_model": asdict(self.group(WorldModelSettings)),
            "search": search,
            "evaluation_search": search | planning.evaluation_changes(),
        }

    def _set(self, setter: str, values: dict[str, Any]) -> EZMConfig:
        values = current_names(values)
        check_names(setter, values, type(self))
        for name, value in values.items():
            if value is not NotProvided:
                setattr(self, name, value)
        return self
