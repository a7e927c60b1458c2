"""Every private name of Ray and RLlib that this package touches, and what breaks without it.

The classes below stand between RLlib's and ours: they override RLlib's private methods and read
its private attributes under names without an underscore. When a release of Ray changes one of
them, this module and `tests/utils/test_ray_internals.py` are the places to look.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core import (
    COMPONENT_ENV_TO_MODULE_CONNECTOR,
    COMPONENT_MODULE_TO_ENV_CONNECTOR,
    DEFAULT_MODULE_ID,
)
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.annotations import override
from ray.tune import Checkpoint, ResumeConfig, Tuner
from ray.tune.experiment import Trial
from ray.tune.logger import TBXLoggerCallback
from ray.tune.trainable.trainable import _TrainingResult

from rllib_ezm.utils.trial_folder import checkpoint_number, next_checkpoint


def is_own_cluster() -> bool:
    """Whether this process started its Ray, which then has no more resources than it has now.

    Private: `ray._private.worker._global_node`; no public call tells who started Ray. Without it, a
    run that asks for too much would wait for ever instead of raising an error.
    """
    node = ray._private.worker._global_node
    return node is not None and bool(node.is_head())


def actor_file(name: str) -> Path | None:
    """A file of this actor's own on its machine, the same after a restart; None in other processes.

    Private: `ray._private.worker._global_node`, whose folder goes with Ray's logs. Without it, such
    files would stay in the temporary folder for ever.
    """
    node = ray._private.worker._global_node
    actor = ray.get_runtime_context().get_actor_id() if ray.is_initialized() else None
    if node is None or actor is None:
        return None
    return Path(node.get_session_dir_path()) / f"{name}-{actor}"


def training_result(checkpoint: Checkpoint | None, metrics: dict[str, Any]) -> Any:
    """What `Trainable.save` returns to Tune.

    Private: `_TrainingResult`; Tune takes nothing else. Without it, a checkpoint that could not be
    written would end the trial.
    """
    return _TrainingResult(checkpoint=checkpoint, metrics=metrics)


def forget_checkpoints(trial: Trial, gone: set[Path]) -> None:
    """Take deleted checkpoints off Tune's list (private: `_CheckpointManager`).

    Without it, `Result.best_checkpoints` would name folders that are not there.
    """
    manager = trial.run_metadata.checkpoint_manager
    manager._checkpoint_results = [
        result for result in manager._checkpoint_results if Path(result.checkpoint.path) not in gone
    ]


def set_start(trial: Trial, checkpoint: Path | None, result: dict[str, Any]) -> None:
    """Have Tune restore a trial from a checkpoint, or not at all (private: `_CheckpointManager`).

    Without it, a trial could only go on from what Tune has noted.
    """
    manager = trial.run_metadata.checkpoint_manager
    if checkpoint is None:
        manager._latest_checkpoint_result = None
        manager._checkpoint_results = []
    else:
        manager._latest_checkpoint_result = training_result(
            Checkpoint.from_directory(checkpoint), dict(result)
        )
    trial.invalidate_json_state()
    trial.run_metadata.invalidate_cache()


def reconfigure(
    tuner: Tuner,
    *,
    callbacks: list[Any],
    scheduler: Any,
    stop: Any = None,
    resume_finished: bool = False,
) -> None:
    """Change a restored tuner (private: `TunerInternal._run_config`, `_resume_config`).

    Without it, a resumed experiment would have the callbacks and bounds that it was started with.

    Args:
        tuner: From `Tuner.restore`.
        callbacks: In place of the pickled ones.
        scheduler: In place of the pickled one.
        stop: In place of the pickled one; None keeps it.
        resume_finished: Whether trials that have reached their end go on.
    """
    local = tuner._local_tuner
    local._run_config.callbacks = callbacks
    local._tune_config.scheduler = scheduler
    if stop is not None:
        local._run_config.stop = stop
    if resume_finished:
        local._resume_config.finished = ResumeConfig.ResumeType.RESUME


class EnvRunnerCreationError(RuntimeError):
    """The constructor of a remote env runner raised."""


class _CreationFailures(logging.Handler):
    """What RLlib logs of env runners that could not be created."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    @override(logging.Handler)
    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("Validation of EnvRunner failed"):
            self.messages.append(record.getMessage())

    def check(self, error: Exception | None = None) -> None:
        """Raise for the first of them; its last line is that of the traceback.

        Without an `error`, only if its constructor raised: a lost process is started again.
        """
        for message in self.messages:
            if error is None and "creation task" not in message:
                continue
            cause = message.strip().splitlines()[-1]
            raise EnvRunnerCreationError(f"an env runner could not be created: {cause}") from error


class OpenAlgorithm(Algorithm):
    """RLlib's `Algorithm` with what a checkpoint of our own needs, and errors that name a cause."""

    def __repr__(self) -> str:
        """RLlib's own reads `config`, which is None until it has been validated.

        Without it, an error of `validate` in a Ray actor would be replaced by one of `__repr__`.
        """
        return type(self).__name__ if self.config is None else super().__repr__()

    @override(Algorithm)
    def setup(self, config: AlgorithmConfig) -> None:
        """RLlib's, which only logs why an env runner could not be created.

        Private: the log of `ray.rllib.env.env_runner_group`. Without it, the error would be
        `IndexError: list index out of range`, or none where only some cannot be created.

        Raises:
            EnvRunnerCreationError: An env runner could not be created; says why.
        """
        failures = _CreationFailures()
        logger = logging.getLogger(EnvRunnerGroup.__module__)
        logger.addHandler(failures)
        try:
            super().setup(config)
        except IndexError as error:
            failures.check(error)
            raise
        finally:
            logger.removeHandler(failures)
        failures.check()

    def create_evaluation_runners(self) -> None:
        """Env runners as RLlib creates them where there is an `evaluation_interval`.

        Private: `Algorithm._get_env_id_and_creator`. Without it, `evaluate()` would need one.
        """
        config = self.evaluation_config
        _, env_creator = self._get_env_id_and_creator(config.env, config)
        self.eval_env_runner_group = EnvRunnerGroup(
            env_creator=env_creator,
            validate_env=None,
            default_policy_class=None,
            config=config,
            logdir=self.logdir,
            tune_trial_id=self.trial_id,
            local_env_runner=config.create_local_env_runner,
            pg_offset=self.config.num_env_runners,
        )

    @property
    def runs_under_tune(self) -> bool:
        """Whether Tune saves this algorithm (private: `Trainable._storage`).

        Without it, a user's own call of `save` could not raise what Tune's call must survive.
        """
        return self._storage is not None

    @property
    def trial_folder(self) -> Path | None:
        """The trial's folder on a local or shared disk; None elsewhere (`Trainable._storage`).

        Without it, a trial could not be asked to end its iteration early.
        """
        storage = self._storage
        if storage is None or not isinstance(
            storage.storage_filesystem, pyarrow.fs.LocalFileSystem
        ):
            return None
        return Path(storage.trial_fs_path)

    def next_checkpoint_folder(self, trial_folder: Path) -> Path:
        """A name in the trial's folder that no checkpoint has had (private: `Trainable._storage`).

        Without it, Tune would copy each checkpoint from a temporary folder, file by file, and give
        names again after a driver has died.
        """
        folder = next_checkpoint(trial_folder, self._storage.current_checkpoint_index)
        self._storage.current_checkpoint_index = checkpoint_number(folder)
        return folder

    @property
    def last_result(self) -> dict[str, Any]:
        """The result of the last iteration (private: `Trainable._last_result`).

        Without it, Tune would get no metrics with a checkpoint that could not be written.
        """
        return dict(self._last_result or {})

    def report_recreated(self, group: EnvRunnerGroup, worker_ids: list[int]) -> None:
        """Call `on_env_runners_recreated` of the callbacks.

        Private: `_make_on_env_runners_recreated_callbacks`, which RLlib calls for the restarts that
        it notices itself. Without it, callbacks would miss the others.
        """
        self._make_on_env_runners_recreated_callbacks(
            config=self.config, env_runner_group=group, restored_env_runner_indices=worker_ids
        )

    def is_wanted(self, component: str, components: Any, not_components: Any) -> bool:
        """Whether `get_state` shall contain a component (private: `_check_component`).

        Without it, the rule for `components` and `not_components` would be written twice.
        """
        return bool(self._check_component(component, components, not_components))


def accept_relative_paths() -> None:
    """Let RLlib's `Algorithm.from_checkpoint` take relative paths, also as a `pathlib.Path`.

    Replaces the method: pyarrow takes a relative path for a URI without a scheme. Without it, only
    `EZM.from_checkpoint` would take them.
    """
    original = Algorithm.from_checkpoint.__func__

    @functools.wraps(original)
    def from_checkpoint(cls: Any, path: Any, filesystem: Any = None, **kwargs: Any) -> Algorithm:
        if filesystem is None and isinstance(path, str | Path) and "://" not in str(path):
            path = str(Path(path).absolute())
        algorithm: Algorithm = original(cls, path, filesystem, **kwargs)
        return algorithm

    Algorithm.from_checkpoint = classmethod(from_checkpoint)


accept_relative_paths()


class OpenLearner(TorchLearner):
    """RLlib's `TorchLearner` whose update and whose joining of other learners are ours."""

    def update_on_batch(self, batch: Any) -> Any:
        """One update on the columns of a batch; returns its loss.

        Overrides the private `_update`, which RLlib calls between its own preparation of the batch
        and its metrics. Without it, the gradient step would be RLlib's chain of hooks.
        """
        raise RuntimeError(f"{type(self).__name__} does not say how to update on a batch.")

    def join_learners(self) -> None:
        """Called once the module is built; joins the learners that share a batch.

        Overrides the private `_make_modules_ddp_if_necessary`. Without it, several learners would
        use DDP, which refuses modules whose outputs no loss reads.
        """

    @override(TorchLearner)
    def _update(self, batch: dict[str, Any]) -> Any:
        loss = self.update_on_batch(batch[DEFAULT_MODULE_ID])
        return {}, {DEFAULT_MODULE_ID: loss}, {}

    @override(TorchLearner)
    def _make_modules_ddp_if_necessary(self) -> None:
        self.join_learners()


RLLIB_METRICS = frozenset(
    {
        "agent_episode_return_mean",
        "env_reset_timer",
        "env_runner_state_server_pull_timer",
        "env_step_timer",
        "env_to_module_connector",
        "env_to_module_sum_episodes_length_in",
        "env_to_module_sum_episodes_length_out",
        "episode_duration_sec_mean",
        "episode_len_max",
        "episode_len_mean",
        "episode_len_min",
        "episode_return_max",
        "episode_return_mean",
        "episode_return_min",
        "module_episode_return_mean",
        "module_to_env_connector",
        "num_agent_steps_sampled",
        "num_agent_steps_sampled_lifetime",
        "num_env_step_failures_lifetime",
        "num_env_steps_sampled",
        "num_env_steps_sampled_lifetime",
        "num_episodes",
        "num_episodes_lifetime",
        "num_module_steps_sampled",
        "num_module_steps_sampled_lifetime",
        "rlmodule_inference_timer",
        "sample",
        "time_between_sampling",
        "weights_seq_no",
    }
)
"""Keys of the metrics that RLlib's env runner logs itself.

Without them, what callbacks logged could not be told apart.
"""


class OpenEnvRunner(SingleAgentEnvRunner):
    """RLlib's `SingleAgentEnvRunner` whose episodes, seed and counters are within reach."""

    env: Any

    def restore_connectors(self, folder: Path) -> None:
        """Take over the states of the connectors of a checkpoint's env runner.

        Private: `_env_to_module`, `_module_to_env`. Without it, an evaluation of a checkpoint would
        play with fresh statistics of the observations.

        Args:
            folder: Holds a folder for each pipeline, by RLlib's names.
        """
        for name, pipeline in (
            (COMPONENT_ENV_TO_MODULE_CONNECTOR, self._env_to_module),
            (COMPONENT_MODULE_TO_ENV_CONNECTOR, self._module_to_env),
        ):
            pipeline.restore_from_path(folder / name)

    @property
    def seed(self) -> int | None:
        """Seed of the next reset of all environments (private: `EnvRunner._seed`).

        Without it, a restarted env runner would play the same episodes again.
        """
        seed: int | None = self._seed
        return seed

    @seed.setter
    def seed(self, value: int) -> None:
        self._seed = value

    def reset_before_sampling(self) -> None:
        """Let the next `sample` begin new episodes everywhere (private: `_needs_initial_reset`).

        Without it, episodes from before a checkpoint or an evaluation would go on after it.
        """
        self._needs_initial_reset = True

    def forget_ongoing_episodes(self) -> None:
        """Drop the episodes under way (private: `_ongoing_episodes`); see above."""
        self._ongoing_episodes = [None] * self.num_envs

    def accept_older_weights(self) -> None:
        """Take the next weights, whatever their age (private: `_weights_seq_no`).

        Without it, env runners would keep weights of an abandoned future after a rollback.
        """
        self._weights_seq_no = 0

    def before_episode(self, env_index: int, ongoing: list[SingleAgentEpisode | None]) -> Any:
        """Called before an episode begins in a slot; what it returns goes to `after_episode_start`.

        Overrides the private `_new_episode`, like `after_episode_start`: RLlib's callback
        `on_episode_created` cannot change the environment. Without it, tasks could not be balanced.

        Args:
            env_index: The slot.
            ongoing: Episode of each slot; that of this one is over, or None.
        """

    def after_episode_start(self, env_index: int, episode: SingleAgentEpisode, given: Any) -> None:
        """Called with the new episode of a slot, before its environment is reset."""

    def count_steps(self, num_steps: int) -> None:
        """Called with the env steps of each step of the vector environment.

        Overrides the private `_increase_sampled_metrics`. Without it, RLlib's count of env steps
        would stand still within an iteration, and with it the schedules that follow it.
        """

    def translate_error(self, error: RuntimeError) -> BaseException:
        """The exception to raise for one from a step of the vector environment.

        Overrides the private `_try_env_step`, which hides the cause in a bare RuntimeError. Without
        it, a failing environment would not be named.
        """
        return error

    def is_counted(self, episode: SingleAgentEpisode) -> bool:
        """Whether callbacks are called for an episode, and its chunks returned.

        Overrides the private `_make_on_episode_callback` and `_sample`. Without it, callbacks would
        see the steps of an evaluation's slot after the episode that it was asked for.
        """
        return True

    def report_environment(self) -> None:
        """Call `on_environment_created` of the callbacks (private: `EnvRunner._callbacks`).

        Without it, an env runner that makes its environment itself would never call it.
        """
        make_callback(
            "on_environment_created",
            callbacks_objects=self._callbacks,
            callbacks_functions=self.config.callbacks_on_environment_created,
            kwargs={
                "env_runner": self,
                "metrics_logger": self.metrics,
                "env": self.env.unwrapped,
                "env_context": EnvContext(
                    self.config.env_config,
                    worker_index=self.worker_index,
                    num_workers=self.num_workers,
                ),
            },
        )

    @override(SingleAgentEnvRunner)
    def _new_episode(self, env_index: int, episodes: Any = None) -> None:
        ongoing = episodes if episodes is not None else self._ongoing_episodes
        self.given = self.before_episode(env_index, ongoing)
        super()._new_episode(env_index, episodes)

    @override(SingleAgentEnvRunner)
    def _make_on_episode_callback(self, which: str, idx: int, episodes: Any) -> None:
        if which == "on_episode_created":
            self.after_episode_start(idx, episodes[idx], self.given)
        if self.is_counted(episodes[idx]):
            super()._make_on_episode_callback(which, idx, episodes)

    @override(SingleAgentEnvRunner)
    def _sample(self, **kwargs: Any) -> list[SingleAgentEpisode]:
        return [chunk for chunk in super()._sample(**kwargs) if self.is_counted(chunk)]

    @override(SingleAgentEnvRunner)
    def _increase_sampled_metrics(self, num_steps: int, num_episodes_completed: int) -> None:
        super()._increase_sampled_metrics(num_steps, num_episodes_completed)
        self.count_steps(num_steps)

    @override(SingleAgentEnvRunner)
    def _try_env_step(self, actions: Any) -> Any:
        try:
            return super()._try_env_step(actions)
        except RuntimeError as error:
            translated = self.translate_error(error)
            if translated is error:
                raise
            raise translated from translated.__cause__


class OpenConfig(AlgorithmConfig):
    """RLlib's `AlgorithmConfig` with the model's settings, and errors in RLlib's form."""

    def model_settings(self) -> dict[str, Any]:
        """What the RLModule's `model_config` contains beside RLlib's own settings.

        Overrides the private property `_model_config_auto_includes`. Without it, users would have
        to repeat the sizes of the tasks in `.rl_module(model_config=...)`.
        """
        return {}

    def refuse(self, message: str) -> None:
        """Raise a ValueError that names the class of this config (private: `_value_error`).

        Without it, `validate(_raise=False)`, which only warns, would raise.
        """
        self._value_error(message)

    @property
    @override(AlgorithmConfig)
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return {**super()._model_config_auto_includes, **self.model_settings()}


class OpenTensorBoard(TBXLoggerCallback):
    """Tune's TensorBoard logger, whose subclass chooses the points of the curves.

    Uses the private `_trial_writer` and `_trial_result`. Without it, all curves would be in one
    group "ray", over the iterations.
    """

    def points(self, result: dict[str, Any]) -> tuple[int, dict[str, float | list[float]]]:
        """The x of a result, and the values at it by curve; a list is a distribution."""
        raise NotImplementedError

    @override(TBXLoggerCallback)
    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        if trial not in self._trial_writer:
            self.log_trial_start(trial)
        step, values = self.points(result)
        writer = self._trial_writer[trial]
        for name, value in values.items():
            if isinstance(value, list):
                writer.add_histogram(name, np.asarray(value), global_step=step)
            else:
                writer.add_scalar(name, value, global_step=step)
        self._trial_result[trial] = values
        writer.flush()


def model_config_of(catalog: Any) -> dict[str, Any]:
    """The model config that RLlib built a catalog with (private: `Catalog._model_config_dict`).

    Without it, multi-head SAC could not learn the number of its tasks.
    """
    config: dict[str, Any] = catalog._model_config_dict
    return config
