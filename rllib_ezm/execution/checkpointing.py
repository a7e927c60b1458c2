"""Checkpoints of EZM: everything in them, and a resumed run is the run that goes on."""

from __future__ import annotations

import logging
import pickle
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pyarrow.fs
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_LEARNER_GROUP
from ray.rllib.utils.annotations import override
from ray.tune import Checkpoint

from rllib_ezm.execution.fixed_settings import (
    check_fixed_settings,
    fixed_settings,
    read_fixed_settings,
    write_fixed_settings,
)
from rllib_ezm.execution.recovery import DRIVER, LEARNER, RecoverableAlgorithm
from rllib_ezm.execution.replay_factory import make_replay_buffer
from rllib_ezm.execution.update_schedule import UpdateSchedule
from rllib_ezm.replay import ReplayBuffer
from rllib_ezm.replay.reorder import reorder_tasks
from rllib_ezm.replay.storage import load_state, save_state
from rllib_ezm.tasks.layout import Layout, match_tasks, read_layout, task_layout, write_layout
from rllib_ezm.tasks.statistics import reorder_statistics
from rllib_ezm.utils.checkpoint_folder import (
    compare_versions,
    readable_folder,
    verify,
    writable_folder,
    write_manifest,
)
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.importing import importable
from rllib_ezm.utils.ownership import warn_of_other_owner
from rllib_ezm.utils.ray_internals import training_result
from rllib_ezm.utils.seeding import derived_seed, seed_generators
from rllib_ezm.utils.trial_folder import SAVE_REQUEST, write_result

logger = logging.getLogger(__name__)

EZM_STATE = "ezm"
"""Key of EZM's own counters in the algorithm's state."""

REPLAY = "replay"
"""Key of the replay buffer in the algorithm's state, and its folder in a checkpoint."""

STATE_FORMAT = 3
NO_TRIAL = "default"
"""`Trainable.trial_id` outside Tune."""


_is_restoring: ContextVar[bool] = ContextVar("is_restoring", default=False)
"""Whether an algorithm is built to go on from a checkpoint at once."""


@contextmanager
def _restoring() -> Iterator[None]:
    before = _is_restoring.set(True)
    try:
        yield
    finally:
        _is_restoring.reset(before)


class ResumableAlgorithm(RecoverableAlgorithm):
    """An RLlib algorithm whose checkpoints hold everything, and are whole or absent.

    A checkpoint is a fresh start for all that is random or under way, in the run that writes it
    just as in a run restored from it, so that both go on identically:

    * Every process gets new seeds for all its random generators. They follow from the run's seed
      and the number of checkpoints written so far.
    * Every environment begins a new episode with a new seed. The transitions of the episodes under
      way are counted and stay in the replay buffer, as parts of episodes without an end; their
      unfinished returns are dropped.
    * All env runners get the learner's latest weights.

    So with a fixed seed and synchronous sampling, N iterations, `save_to_path`, N iterations give
    the same weights, buffer and metrics (timings apart) as N iterations, `save_to_path`, a new
    process, `from_checkpoint`, N iterations. A run that never saves may go another way. A Tune
    trial that takes over the checkpoint of another one, as under PBT, gets seeds of its own.

    `save_to_path` writes RLlib's files, the replay buffer as plain arrays under `replay/`, and a
    manifest with the checksums of all of them, first under a temporary name. Parts of the buffer
    that the previous checkpoint has as well are linked to it, not written again. Restoring compares
    them. The weights are a safetensors file; RLlib's own files (optimizer, counters, config) are
    pickles, as in any of its checkpoints: load only those that you trust.
    """

    config: Any

    @override(RecoverableAlgorithm)
    def setup(self, config: AlgorithmConfig) -> None:
        super().setup(config)
        self._has_begun = False
        self._shortened: AlgorithmConfig | None = None
        self._last_replay: Path | None = None
        settings = self.config
        device = None
        if settings.replay_device == "learner":
            (on_learner,) = self.learner_group.foreach_learner(lambda learner: learner.device)
            device = on_learner.get()
        self.replay_buffer: ReplayBuffer = make_replay_buffer(settings, device)
        self.schedule = UpdateSchedule(
            settings.replay_ratio, settings.num_steps_sampled_before_learning_starts
        )
        self.evaluation_score_mean: float | None = None
        self._num_failed_checkpoints = 0
        self._checkpoint_failure: str | None = None

    @property
    def num_updates(self) -> int:
        """Updates made so far."""
        return self.schedule.num_updates

    @property
    def num_updates_due(self) -> int:
        """Updates that `replay_ratio` allows by now."""
        return self.schedule.num_due(self.num_env_steps)

    @classmethod
    @override(Algorithm)
    def from_checkpoint(
        cls, path: Any, filesystem: pyarrow.fs.FileSystem | None = None, **kwargs: Any
    ) -> ResumableAlgorithm:
        """A new algorithm that goes on from a checkpoint.

        Raises:
            UserError: A file of the checkpoint is missing, truncated or not the one that was
                written; the message names it.
        """
        path = path.to_directory() if isinstance(path, Checkpoint) else path
        with readable_folder(path, filesystem) as folder:
            manifest = verify(
                folder, within=(cls.CLASS_AND_CTOR_ARGS_FILE_NAME, cls.METADATA_FILE_NAME)
            )
            arguments = folder / cls.CLASS_AND_CTOR_ARGS_FILE_NAME
            with importable(folder, manifest), arguments.open("rb") as file:
                pickle.load(file)  # where that fails, RLlib would take the default config instead
            with _restoring():
                algorithm: ResumableAlgorithm = super().from_checkpoint(folder.as_posix(), **kwargs)
            return algorithm

    @override(Algorithm)
    def save_to_path(
        self,
        path: str | Path | None = None,
        *,
        state: dict[str, Any] | None = None,
        filesystem: pyarrow.fs.FileSystem | None = None,
        use_msgpack: bool = False,
    ) -> str:
        """Writes a checkpoint, and begins new episodes with new seeds (see the class).

        A `state` of `get_state()` is written as it is, and the run is left alone.

        Raises:
            OSError: The disk is full or not writable; a checkpoint already at `path` is unharmed.
        """
        here_and_now = state is None
        if state is None:
            self.quiesce()
            self._num_checkpoints += 1
            state = self.get_state(not_components=REPLAY)
            if self.config.store_buffer_in_checkpoints:
                state[REPLAY] = self.replay_buffer.get_state(copy=False)
        state = dict(state)
        replay = state.pop(REPLAY, None)
        target = tempfile.mkdtemp() if path is None else path
        with writable_folder(target, filesystem) as folder:
            super().save_to_path(folder, state=state, use_msgpack=use_msgpack)
            if EZM_STATE in state:
                write_layout(folder, state[EZM_STATE]["tasks"])
                write_fixed_settings(folder, state[EZM_STATE]["fixed_settings"])
                self.write_summary(folder, state)
            if replay is not None:
                save_state(replay, folder / REPLAY, self._last_replay)
            if here_and_now and self.runs_under_tune:
                write_result(folder, self.last_result)
            write_manifest(folder)
        if here_and_now:
            self._last_replay = Path(target) / REPLAY
            self._reset_and_reseed()
        return str(target)

    @override(Algorithm)
    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Tune's call: where the disk does not take the checkpoint, training goes on without it.

        On a local or shared disk, the checkpoint is written into the trial's folder at once, whole
        or not at all; Tune would copy it there from a temporary folder, file by file. The error
        is logged and counted in the results (`checkpoint_failures`); the previous checkpoint stays
        the last one.
        """
        trial_folder = self.trial_folder if checkpoint_dir is None else None
        try:
            if trial_folder is None:
                return super().save(checkpoint_dir)
            folder = self.next_checkpoint_folder(trial_folder)
            self.save_checkpoint(str(folder))
            return training_result(Checkpoint.from_directory(folder), self.last_result)
        except OSError as error:
            if not self.runs_under_tune:  # called by the user, who gets the exception
                raise
            self._num_failed_checkpoints += 1
            self._checkpoint_failure = str(error)
            logger.exception(
                "No checkpoint was written at iteration %d; training goes on, and the previous "
                "checkpoint is still good.",
                self.training_iteration,
            )
            return training_result(None, self.last_result)

    @property
    def is_save_requested(self) -> bool:
        """Whether the one who runs this trial waits for its iteration to end, to save it."""
        folder = self.trial_folder
        return folder is not None and (folder / SAVE_REQUEST).exists()

    def end_iteration_if_requested(self) -> None:
        """After a training step: this one was the last of its iteration, if a save is wanted."""
        if not self.is_save_requested:
            return
        self._shortened = self.config
        self.config = self.config.copy(copy_frozen=False)
        self.config.min_time_s_per_iteration = None
        self.config.min_sample_timesteps_per_iteration = 0
        self.config.min_train_timesteps_per_iteration = 0

    @override(Algorithm)
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if self.is_save_requested:  # whoever waits for it would wait longer
            return {}
        results: dict[str, Any] = super().evaluate(*args, **kwargs)
        return results

    @override(Algorithm)
    def step(self) -> dict[str, Any]:
        self.begin()
        try:
            results: dict[str, Any] = super().step()
        finally:
            if self._shortened is not None:
                self.config, self._shortened = self._shortened, None
        results["checkpoint_failures"] = self._num_failed_checkpoints
        if self._checkpoint_failure is not None:  # since the last result
            results["checkpoint_failure"], self._checkpoint_failure = self._checkpoint_failure, None
        results["env_runner_restarts"] = self.num_env_runner_restarts
        return results

    @override(Algorithm)
    def restore_from_path(
        self,
        path: str | Path,
        *,
        component: str | None = None,
        filesystem: pyarrow.fs.FileSystem | None = None,
        **kwargs: Any,
    ) -> None:
        """Takes over a checkpoint, in a new algorithm or in one that has gone on since.

        Raises:
            UserError: A file of the checkpoint is missing, truncated or not the one that was
                written, or its tasks (in any order) or `FIXED_SETTINGS` are not those of the
                config; the message says which, and nothing has been restored.
        """
        self.quiesce()
        with readable_folder(path, filesystem) as folder:
            if component is not None:
                super().restore_from_path(folder, component=component, **kwargs)
                self._push_weights(derived_seed(self._run_seed, self._num_checkpoints))
                return
            manifest = verify(folder)
            compare_versions(folder, manifest["versions"])
            warn_of_other_owner(folder)
            source = self._match_tasks(read_layout(folder))
            check_fixed_settings(read_fixed_settings(folder), fixed_settings(self.config))
            super().restore_from_path(folder, **kwargs)
            self._reorder_learned(source)
            if (folder / REPLAY).is_dir():
                self._last_replay = folder / REPLAY
                self.replay_buffer.set_state(reorder_tasks(load_state(folder / REPLAY), source))
            else:
                self._collect_before_learning()
        self._has_begun = True
        self._reset_and_reseed()

    @override(Algorithm)
    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state(
            components, not_components=not_components, **kwargs
        )
        if self.is_wanted(EZM_STATE, components, not_components):
            state[EZM_STATE] = {
                "format": STATE_FORMAT,
                "run_seed": self._run_seed,
                "trial_id": self.trial_id,
                "num_checkpoints": self._num_checkpoints,
                "schedule": self.schedule.get_state(),
                "evaluation_score_mean": self.evaluation_score_mean,
                "task_statistics": self.task_statistics.get_state(),
                "tasks": self._task_layout(),
                "fixed_settings": fixed_settings(self.config),
            }
        if self.config.store_buffer_in_checkpoints and self.is_wanted(
            REPLAY, components, not_components
        ):
            state[REPLAY] = self.replay_buffer.get_state()
        return state

    @override(Algorithm)
    def set_state(self, state: dict[str, Any]) -> None:
        source = self._match_tasks(state.get(EZM_STATE, {}).get("tasks"))
        if "fixed_settings" in state.get(EZM_STATE, {}):
            check_fixed_settings(state[EZM_STATE]["fixed_settings"], fixed_settings(self.config))
        super().set_state(state)
        if COMPONENT_LEARNER_GROUP in state:
            self._reorder_learned(source)
        if EZM_STATE in state:
            own = state[EZM_STATE]
            if own.get("format") != STATE_FORMAT:
                raise UserError(
                    f"This state has format {own.get('format')}, this version of rllib_ezm reads "
                    f"{STATE_FORMAT}: use the version that wrote it."
                )
            self._run_seed = own["run_seed"]
            if self.trial_id not in (own["trial_id"], NO_TRIAL):
                self._run_seed = derived_seed(self._run_seed, zlib.crc32(self.trial_id.encode()))
            self._num_checkpoints = own["num_checkpoints"]
            self.task_statistics.set_state(reorder_statistics(own["task_statistics"], source))
            self.schedule.set_state(own["schedule"], self.num_env_steps)
            self.evaluation_score_mean = own["evaluation_score_mean"]
            self._has_begun = True
        if REPLAY in state:
            self.replay_buffer.set_state(reorder_tasks(state[REPLAY], source))

    def _match_tasks(self, stored: Layout | None) -> list[int]:
        """For each task its id in a state with these tasks; the same ids if it does not say."""
        tasks = self._task_layout()
        return match_tasks(tasks if stored is None else stored, tasks)

    def _reorder_learned(self, source: list[int]) -> None:
        """Give what the learners have restored the ids of this config's tasks."""
        if source == sorted(source):
            return
        self.learner_group.foreach_learner(lambda learner: learner.reorder_tasks(source))
        self._push_weights(derived_seed(self._run_seed, self._num_checkpoints))

    def _task_layout(self) -> Layout:
        termination = self.config.env_config.get("termination", "respect")
        return task_layout(self.config.get_task_set().specs, termination)

    def _collect_before_learning(self) -> None:
        """Goes on without the buffer of the run so far, and says so."""
        self.schedule.wait_again(self.num_env_steps)
        logger.warning(
            "The checkpoint holds no replay buffer (store_buffer_in_checkpoints=False): "
            "learning waits until %d new env steps are collected.",
            self.config.num_steps_sampled_before_learning_starts,
        )

    @override(Algorithm)
    def cleanup(self) -> None:
        if hasattr(self, "replay_buffer"):  # not if `setup` failed before
            self.replay_buffer.close()
        super().cleanup()

    def begin(self) -> None:
        """A new run begins, unless it has, or goes on from a checkpoint: `warm_start` is due."""
        if not self._has_begun:
            self._has_begun = True
            if self.warm_start():
                self._reset_and_reseed()

    def begin_unless_restored(self) -> None:
        """Begin now, at the end of `setup`, unless a checkpoint may follow: then at the first step.

        A trial of Tune is told of its checkpoint only after it was set up.
        """
        if not (self.runs_under_tune or _is_restoring.get()):
            self.begin()

    def warm_start(self) -> bool:
        """Take over what another run has learned; whether there is one. None unless overridden."""
        return False

    def write_summary(self, folder: Path, state: dict[str, Any]) -> None:
        """Add to a checkpoint what is to be read without a pickle; nothing unless overridden."""

    def quiesce(self) -> None:
        """Finish what is under way in other threads and processes; nothing unless overridden."""

    def discard_stale_weights(self) -> None:
        """All processes have new weights, and nothing is under way; nothing unless overridden."""

    def _reset_and_reseed(self) -> None:
        """New seeds, new episodes and the latest weights everywhere, see the class."""
        seed = derived_seed(self._run_seed, self._num_checkpoints)
        self.task_statistics.abandon_ongoing()
        self.learner_group.foreach_learner(
            lambda learner: seed_generators(derived_seed(seed, LEARNER, learner.collective.rank))
        )
        self._push_weights(seed)
        seed_generators(derived_seed(seed, DRIVER))
        self.discard_stale_weights()

    def _push_weights(self, seed: int) -> None:
        """Give all env runners the learner's weights, even those that hold newer ones.

        RLlib's own sync skips a runner whose weights carry a higher sequence number, so after going
        back to an older checkpoint runners would act with weights of the abandoned future.
        """
        self.start_runners(self.env_runner_group, seed)
        if self.eval_env_runner_group is not None:
            self.start_runners(self.eval_env_runner_group, seed)
