"""Every private name of Ray and RLlib that this package touches, and what breaks without it.

The classes below stand between RLlib's and ours: they override RLlib's private methods and read
its private attributes under names without an underscore. When a release of Ray changes one of
them, this module and `tests/utils/test_ray_internals.py` are the places to look.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.fs
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.annotations import override
from ray.tune import Checkpoint, ResumeConfig, Tuner
from ray.tune.experiment import Trial
from ray.tune.trainable.trainable import _TrainingResult

from rllib_ezm.utils.trial_folder import checkpoint_number, next_checkpoint


def is_own_cluster() -> bool:
    """Whether this process started its Ray, which then has no more resources than it has now.

    Private: `ray._private.worker._global_node`; no public call tells who started Ray. Without it, a
    run that asks for too much would wait for ever instead of raising an error.
    """
    node = ray._private.worker._global_node
    return node is not None and bool(node.is_head())


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


class OpenAlgorithm(Algorithm):
    """RLlib's `Algorithm` with what a checkpoint of our own needs."""

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

    def is_wanted(self, component: str, components: Any, not_components: Any) -> bool:
        """Whether `get_state` shall contain a component (private: `_check_component`).

        Without it, the rule for `components` and `not_components` would be written twice.
        """
        return bool(self._check_component(component, components, not_components))


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
