"""Task scaling (the paper's Fig. 4) on HumanoidBench Medium: 1, 4 or 9 tasks in one world model.

rllib train file tuned_examples/task_scaling_medium.py --num-samples 3 --experiment-name scaling
rllib-ezm report ~/ray_results/scaling --group-by num_tasks

Sized for GPUs; `--smoke` tries all twelve variants out anywhere. The paper's partitions, 1e6 env
steps and 2e5 updates per task in each; h1-maze is in none of the sets of four.
"""

from collections.abc import Mapping
from typing import Any

from ezm_medium import TASKS
from ezm_medium import config as nine_tasks

from rllib_ezm import EZMConfig, sweep

PARTITIONS = {
    "stand, walk, run, stair": ["hb:h1-stand", "hb:h1-walk", "hb:h1-run", "hb:h1-stair"],
    "crawl, pole, slide, hurdle": ["hb:h1-crawl", "hb:h1-pole", "hb:h1-slide", "hb:h1-hurdle"],
}

ENV_STEPS_PER_TASK = 1_000_000
UPDATES = 200_000
SMALLER_BATCH = 256
"""For 1 and 4 tasks: no task gets fewer samples in an update than the 56 of 512 for 9."""


def on_tasks(tasks: list[str]) -> EZMConfig:
    """The settings of ezm_medium.py, with what counts all tasks in proportion to their number."""
    count = len(tasks)
    return (
        nine_tasks.copy(copy_frozen=False)
        .tasks(tasks)
        .training(
            train_batch_size_per_learner=SMALLER_BATCH,
            replay_ratio=UPDATES / (ENV_STEPS_PER_TASK * count),
            num_steps_sampled_before_learning_starts=1000 * count,
            num_random_steps=1000 * count,
        )
        .reporting(min_sample_timesteps_per_iteration=1000 * count)
    )


def stop(trial_id: str, result: Mapping[str, Any]) -> bool:
    steps = [task["env_steps"] for task in result["tasks"].values()]
    return sum(steps) >= ENV_STEPS_PER_TASK * len(steps)


config = sweep(
    {
        **{f"1 task: {task}": on_tasks([task]) for task in TASKS},
        **{f"4 tasks: {name}": on_tasks(tasks) for name, tasks in PARTITIONS.items()},
        "9 tasks": nine_tasks,
    }
)

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
