"""Writes folders as Tune leaves them, for tests of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

INTERVAL = 2


def spec_text(task: str, *, random: float = 0.0, success: float = 100.0, repeat: int = 2) -> str:
    """A `TaskSpec` as it stands in `params.json`."""
    return (
        f"TaskSpec(name='{task}', make=functools.partial(<class 'Env'>, 'a', 'b'), "
        f"random_score={random}, success_score={success}, max_episode_steps=1000, "
        f"action_repeat={repeat}, description='a, b')"
    )


def write_trial(
    folder: Path,
    returns: Mapping[str, Sequence[float]],
    *,
    seed: int | None = 0,
    steps: int = 100,
    per_task: bool = True,
    config: Mapping[str, Any] | None = None,
    gradients: Mapping[str, Sequence[float]] | None = None,
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
        gradients: By module, the cosine of the first two tasks in each iteration from the second.
    """
    folder.mkdir(parents=True)
    tasks = [spec_text(task) for task in returns]
    params = {"seed": seed, "evaluation_interval": INTERVAL, "env_config": {"tasks": tasks}}
    (folder / "params.json").write_text(json.dumps(params | dict(config or {})))
    count = len(next(iter(returns.values()), []))
    lines = []
    for iteration in range(1, INTERVAL * count + 2):
        latest = iteration // INTERVAL - 1
        evaluated = {
            task: {"episode_return_mean": values[latest], "normalized_score": values[latest] / 100}
            for task, values in returns.items()
        }
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
