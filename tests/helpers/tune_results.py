"""Writes folders as Tune leaves them, for tests of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

INTERVAL = 2


CONSTANTS = {"random_score": 0.0, "success_score": 100.0, "action_repeat": 2}
"""Of every task, as its evaluations have them."""


def _evaluation(
    returns: Mapping[str, Sequence[float]],
    info: Mapping[str, Mapping[str, Sequence[float | None]]],
    index: int,
) -> dict[str, dict[str, Any]]:
    """Results of the tasks in one evaluation."""
    evaluated: dict[str, dict[str, Any]] = {
        task: {"episode_return_mean": values[index], "normalized_score": values[index] / 100}
        | CONSTANTS
        for task, values in returns.items()
    }
    for task, metrics in info.items():
        means = {name: values[index] for name, values in metrics.items()}
        evaluated[task]["info"] = {k: v for k, v in means.items() if v is not None}
    return evaluated


def write_trial(
    folder: Path,
    returns: Mapping[str, Sequence[float]],
    *,
    seed: int | None = 0,
    steps: int = 100,
    per_task: bool = True,
    config: Mapping[str, Any] | None = None,
    gradients: Mapping[str, Sequence[float]] | None = None,
    info: Mapping[str, Mapping[str, Sequence[float | None]]] | None = None,
) -> Path:
    """Write a trial whose tasks (success score 100) had these evaluation returns.

    An evaluation takes place every second iteration; as RLlib does, the next result repeats it.

    Args:
        folder: The trial's folder.
        returns: Evaluation returns of each task.
        seed: The trial's seed.
        steps: Env steps of each task per iteration.
        per_task: Count env steps per task, as EZM does and other algorithms do not.
        config: Further fields of the config.
        info: By task and metric, its mean in each evaluation; None where it was not reported.
        gradients: By module, the cosine of the first two tasks in each iteration from the second.
    """
    folder.mkdir(parents=True)
    tasks = [f"TaskSpec(name='{task}', make=<function f at 0x7f{seed}>)" for task in returns]
    params = {"seed": seed, "evaluation_interval": INTERVAL, "env_config": {"tasks": tasks}}
    (folder / "params.json").write_text(json.dumps(params | dict(config or {})))
    count = len(next(iter(returns.values()), []))
    lines = []
    for iteration in range(1, INTERVAL * count + 2):
        latest = iteration // INTERVAL - 1
        evaluated = _evaluation(returns, info or {}, latest)
        result: dict[str, Any] = {
            "training_iteration": iteration,
            "time_total_s": 10.0 * iteration,
            "num_env_steps_sampled_lifetime": steps * iteration * len(returns),
            "evaluation": {"tasks": evaluated} if latest >= 0 else {},
        }
        if per_task:
            result["num_updates_lifetime"] = 5 * iteration
            result["tasks"] = {task: {"env_steps": steps * iteration} for task in returns}
        if gradients and iteration > 1:
            one, other = list(returns)[:2]
            result["probes"] = {
                "gradient_cosine": {
                    module: {one: {other: values[iteration - 2]}}
                    for module, values in gradients.items()
                    if iteration - 2 < len(values)
                }
            }
        lines.append(json.dumps(result) + "\n")
    (folder / "result.json").write_text("".join(lines))
    return folder
