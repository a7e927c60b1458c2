"""Tune's trials as evaluation curves: return and score against env steps per task.

Reads `result.json` and `params.json` of each trial. Env steps are decisions of the agent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rllib_ezm.utils.errors import UserError

RESULT_FILE = "result.json"
PARAMS_FILE = "params.json"
RUN_FILE = "rllib_run.json"
"""In the folder of an experiment of `rllib train file`: how it was started."""

EVALUATED = "evaluation/tasks/NAME/episode_return_mean"

TASKS = "env_config/tasks"
"""Field of `Trial.config` that names the tasks of a trial, joined by "+"."""

_CONSTANTS = ("random_score", "success_score", "action_repeat")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class TaskInfo:
    """The constants of a task that its scores and axes need.

    Attributes:
        random_score: Return of a random policy in eq. 13, arXiv:2603.01452.
        success_score: Return that counts as success there.
        action_repeat: Simulator steps per env step.
    """

    random_score: float
    success_score: float
    action_repeat: int


@dataclass(frozen=True)
class Curve:
    """The evaluations of one task during one run, in order of env steps.

    Attributes:
        env_steps: Env steps of this task [P].
        updates: Learner updates [P]; NaN where the algorithm does not count them.
        seconds: Training time [P], in seconds.
        returns: Mean episode return of the evaluation [P], in the task's reward unit.
        scores: Mean normalized score of the evaluation [P], eq. 13.
        info: Mean of each metric of the environment's `info` in the evaluation [P]; NaN where it
            was not reported.
    """

    env_steps: np.ndarray
    updates: np.ndarray
    seconds: np.ndarray
    returns: np.ndarray
    scores: np.ndarray
    info: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """The fields in their order, then the metrics, each [P]."""
        fields = (self.env_steps, self.updates, self.seconds, self.returns, self.scores)
        return (*fields, *self.info.values())

    def at(self, points: np.ndarray) -> Curve:
        """The curve at some of its points: indices or a mask."""
        return self._of_columns([column[points] for column in self.columns])

    def followed_by(self, point: Iterable[float]) -> Curve:
        """The curve and one more point, a number for each of `columns`."""
        pairs = zip(self.columns, point, strict=True)
        return self._of_columns([np.append(column, value) for column, value in pairs])

    def _of_columns(self, columns: Sequence[np.ndarray]) -> Curve:
        steps, updates, seconds, returns, scores, *info = columns
        metrics = dict(zip(self.info, info, strict=True))
        return Curve(steps, updates, seconds, returns, scores, metrics)


@dataclass(frozen=True)
class GradientCosines:
    """What `rllib_ezm.algorithm.callbacks.GradientSimilarity` measured during one run.

    Attributes:
        updates: Learner updates at each measurement [P].
        cosines: Of each module: [P, T, T], tasks in the order of the trial, 1 on the diagonal;
            NaN where a task had no data yet.
    """

    updates: np.ndarray
    cosines: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Trial:
    """One run: a seed of a setting.

    Attributes:
        experiment: Name of the experiment's folder.
        name: Name of the trial's folder.
        folder: The trial's folder.
        commands: What was typed to start its experiment and to go on with it; empty if not known.
        seed: Its seed; None if it had none.
        config: The config's fields, nested ones joined by "/", with their values as JSON text; its
            tasks by their names, see `TASKS`.
        tasks: The constants of its tasks.
        curves: The curve of each of its tasks.
        gradients: Similarity of its tasks' gradients; None if not measured, or of one task.
    """

    experiment: str
    name: str
    folder: Path
    commands: Sequence[str]
    seed: int | None
    config: Mapping[str, str]
    tasks: Mapping[str, TaskInfo]
    curves: Mapping[str, Curve]
    gradients: GradientCosines | None


def find_trials(directories: Iterable[Path]) -> tuple[list[Trial], list[str]]:
    """Read all trials under the directories.

    Args:
        directories: Each a Tune experiment, a folder of experiments, or a single trial.

    Returns:
        The trials that were evaluated, and "EXPERIMENT/TRIAL" of those that were not.

    Raises:
        UserError: If a directory holds no trial, or no trial was evaluated per task.
    """
    folders: dict[Path, None] = {}
    for directory in directories:
        folders |= dict.fromkeys(_trial_folders(directory.expanduser().resolve()))
    trials = [_read_trial(folder) for folder in folders]
    evaluated = [trial for trial in trials if trial.curves]
    if not evaluated:
        raise UserError(
            f"no evaluation per task in {_listing(folders)}: looked for {EVALUATED} in every "
            f"{RESULT_FILE}; train with config.evaluation(evaluation_interval=...), and other "
            "algorithms than EZM also with custom_evaluation_function=evaluate_per_task (from "
            "rllib_ezm.algorithm.evaluation)"
        )
    return evaluated, [f"{t.experiment}/{t.name}" for t in trials if not t.curves]


def _trial_folders(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise UserError(f"no such folder: {directory}")
    patterns = (RESULT_FILE, f"*/{RESULT_FILE}", f"*/*/{RESULT_FILE}")
    files = sorted(file for pattern in patterns for file in directory.glob(pattern))
    if not files:
        raise UserError(
            f"no results of Tune in {directory}: looked for {', '.join(patterns)} (a trial, an "
            "experiment, a folder of experiments)"
        )
    return [file.parent for file in files]


def _read_trial(folder: Path) -> Trial:
    params_file = folder / PARAMS_FILE
    if not params_file.is_file():
        raise UserError(f"{folder} has a {RESULT_FILE} but no {PARAMS_FILE}: not a trial of Tune")
    params = json.loads(params_file.read_text(encoding="utf-8"))
    results = _results(folder / RESULT_FILE)
    tasks = _task_infos(results, folder)
    config = dict(_flatten(params))
    if tasks:
        config[TASKS] = json.dumps("+".join(tasks))
    return Trial(
        experiment=folder.parent.name,
        name=folder.name,
        folder=folder,
        commands=_commands(folder.parent / RUN_FILE),
        seed=params.get("seed"),
        config=config,
        tasks=tasks,
        curves=_curves(results, params.get("evaluation_interval")),
        gradients=_gradients(results, list(tasks)),
    )


def _commands(file: Path) -> list[str]:
    """The commands that `rllib train file` keeps in the folder of an experiment."""
    if not file.is_file():
        return []
    kept = json.loads(file.read_text(encoding="utf-8")).get("commands", [])
    return [str(command) for command in kept]


def _results(file: Path) -> list[dict[str, Any]]:
    """The results in order of iterations; a resumed trial's new results replace the old ones."""
    results: dict[int, dict[str, Any]] = {}
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()  # a running trial is writing it
    for line in lines:
        result = json.loads(line)
        iteration = result["training_iteration"]
        results = {i: r for i, r in results.items() if i < iteration}
        results[iteration] = result
    return list(results.values())


def _evaluated(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the evaluation of a result found of each task."""
    return (result.get("evaluation") or {}).get("tasks") or {}


def _curves(results: Sequence[dict[str, Any]], interval: int | None) -> dict[str, Curve]:
    """The curve of each task; RLlib repeats an evaluation in later results, which are skipped."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    info: dict[str, list[dict[str, float | None]]] = {}
    for result in results:
        if not interval or result["training_iteration"] % interval:
            continue
        evaluated = _evaluated(result)
        for task, values in evaluated.items():
            episode_return, score = values["episode_return_mean"], values["normalized_score"]
            if episode_return is None or score is None:
                continue
            updates = result.get("num_updates_lifetime")
            row = (
                _env_steps(result, task, len(evaluated)),
                np.nan if updates is None else updates,
                result["time_total_s"],
                episode_return,
                score,
            )
            rows.setdefault(task, []).append(row)
            info.setdefault(task, []).append(values.get("info") or {})
    curves = {}
    for task, points in rows.items():
        steps, updates, seconds, returns, scores = np.asarray(points, dtype=np.float64).T
        metrics = _info_columns(info[task])
        curves[task] = Curve(steps, updates, seconds, returns, scores, metrics)
    return curves


def _info_columns(points: Sequence[Mapping[str, float | None]]) -> dict[str, np.ndarray]:
    """Each metric that any of P evaluations reported [P]."""
    names = dict.fromkeys(name for point in points for name in point)
    return {name: np.array([point.get(name) for point in points], dtype=float) for name in names}


def _gradients(results: Sequence[dict[str, Any]], tasks: Sequence[str]) -> GradientCosines | None:
    """The measurements of a run; the results name every pair of tasks once."""
    measured = [
        (result["num_updates_lifetime"], result["probes"]["gradient_cosine"])
        for result in results
        if "gradient_cosine" in (result.get("probes") or {})
    ]
    if not measured or len(tasks) < 2:
        return None
    cosines: dict[str, np.ndarray] = {}
    for index, (_, modules) in enumerate(measured):
        for module, pairs in modules.items():
            empty = np.where(np.eye(len(tasks)), 1.0, np.full((len(measured), 1, 1), np.nan))
            matrices = cosines.setdefault(module, empty)
            for one, others in pairs.items():
                for other, value in others.items():
                    i, j = tasks.index(one), tasks.index(other)
                    matrices[index, i, j] = matrices[index, j, i] = value
    return GradientCosines(np.array([updates for updates, _ in measured]), cosines)


def _env_steps(result: Mapping[str, Any], task: str, num_tasks: int) -> float:
    """Env steps of the task; without a count per task, its equal share of all of them.

    `MultiTaskEnvRunner` keeps the shares equal to within an episode per slot.
    """
    counted = (result.get("tasks") or {}).get(task, {}).get("env_steps")
    if counted is not None:
        return float(counted)
    return float(result["num_env_steps_sampled_lifetime"]) / num_tasks


def _task_infos(results: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, TaskInfo]:
    """Constants of the tasks, which every evaluation writes into the results.

    Raises:
        UserError: If an evaluation lacks them, as those of earlier versions do.
    """
    infos: dict[str, TaskInfo] = {}
    for result in results:
        for task, values in _evaluated(result).items():
            missing = [name for name in _CONSTANTS if values.get(name) is None]
            if missing and values.get("episode_return_mean") is not None:
                raise UserError(
                    f"{folder / RESULT_FILE}: its evaluations of {task} lack "
                    f"{', '.join(missing)}. It was written by an earlier version of rllib_ezm: "
                    "make the report with that one, or train again"
                )
            if not missing and task not in infos:
                infos[task] = TaskInfo(
                    float(values["random_score"]),
                    float(values["success_score"]),
                    int(values["action_repeat"]),
                )
    return infos


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}/")
        else:
            yield prefix + key, _ADDRESS.sub("", json.dumps(value))


def _listing(folders: Iterable[Path]) -> str:
    names = [str(folder) for folder in folders]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
