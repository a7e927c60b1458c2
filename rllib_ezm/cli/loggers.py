"""Where the curves of a training go: TensorBoard, and Weights & Biases or MLflow if asked for."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from typing import Any

from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.result import TIMESTEPS_TOTAL, TRAINING_ITERATION

from rllib_ezm.cli.curves import curves
from rllib_ezm.cli.interruption import say
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.ray_internals import OpenTensorBoard


class TensorBoardCurves(OpenTensorBoard):
    """Tune's TensorBoard files with the groups and the x axis of `curves`."""

    def points(self, result: dict[str, Any]) -> tuple[int, dict[str, float | list[float]]]:
        """Env steps, and the curves at them."""
        return curves(result)


class WandbCurves(WandbLoggerCallback):
    """Ray's logger for Weights & Biases with the groups of `curves`, and `env_steps`."""

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Called by Tune for every result."""
        step, values = curves(result)
        kept = {key: result[key] for key in (TRAINING_ITERATION, "config") if key in result}
        super().log_trial_result(iteration, trial, {**kept, **values, "env_steps": step})


class MlflowCurves(MLflowLoggerCallback):
    """Ray's logger for MLflow with the groups of `curves`, whose steps are env steps."""

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """Called by Tune at the start: finds or makes the experiment at the URI."""
        mlflow = importlib.import_module("mlflow")
        try:
            super().setup(*args, **kwargs)
        except (mlflow.exceptions.MlflowException, OSError) as error:
            raise UserError(f"--mlflow {self.tracking_uri}: {error}") from error

    def log_trial_start(self, trial: Trial) -> None:
        """Called by Tune."""
        self._without_harm(super().log_trial_start, trial)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Called by Tune."""
        self._without_harm(super().log_trial_end, trial, failed)

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Called by Tune for every result."""
        step, values = curves(result)
        allowed = {re.sub(r"[^\w\-. :/]", "_", name): value for name, value in values.items()}
        steps = {TIMESTEPS_TOTAL: step, TRAINING_ITERATION: result[TRAINING_ITERATION]}
        self._without_harm(super().log_trial_result, iteration, trial, {**allowed, **steps})

    def _without_harm(self, call: Callable[..., None], *arguments: Any) -> None:
        """A run goes on where MLflow cannot be reached, or has not begun a run (KeyError)."""
        mlflow = importlib.import_module("mlflow")
        try:
            call(*arguments)
        except (mlflow.exceptions.MlflowException, KeyError, OSError) as error:
            say(f"MLflow has not got a result: {' '.join(str(error).split())[:200]}")


def loggers(experiment: str, *, wandb: str | None, mlflow: str | None) -> list[Callback]:
    """The callbacks that write curves.

    Args:
        experiment: Name of the experiment.
        wandb: Project at Weights & Biases; None for none.
        mlflow: Tracking URI of MLflow, also a folder; None for none.

    Raises:
        UserError: If a package is missing, or Weights & Biases has no key and is not offline.
    """
    chosen: list[Callback] = [TensorBoardCurves()]
    if wandb is not None:
        _require("wandb")
        # The logger's process may be one of a cluster that does not have the variable.
        mode = os.environ.get("WANDB_MODE")
        callback = WandbCurves(project=wandb, group=experiment, resume="allow", mode=mode)
        try:
            callback.setup()
        except ValueError as error:
            raise UserError(
                "--wandb: no API key: `wandb login` once, or set WANDB_API_KEY, or "
                "WANDB_MODE=offline to write files that `wandb sync` uploads later"
            ) from error
        chosen.append(callback)
    if mlflow is not None:
        _require("mlflow")
        mlflow_callback = MlflowCurves(tracking_uri=mlflow, experiment_name=experiment)
        mlflow_callback.setup()
        chosen.append(mlflow_callback)
    return chosen


def _require(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"--{package} needs the package {package} ({error}): pip install 'rllib-ezm[{package}]'"
        ) from error
