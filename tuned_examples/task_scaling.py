"""Task scaling (the paper's Fig. 4) on the default suite: 1, 3 or 6 tasks in one world model.

rllib train file tuned_examples/task_scaling.py --num-samples 3 --experiment-name task_scaling
rllib-ezm report ~/ray_results/task_scaling --group-by num_tasks --reference "6 tasks"

Six tasks of three bodies with different observation and action sizes; each is learned alone, in a
set of three and with all others, for equal env steps per task. Every task gets the same number of
updates per env step of its own, and at least as many samples in each update alone as among others.
A run takes about 40 minutes of one core with 1 or 3 tasks, twice that with 6.
"""

from collections.abc import Mapping
from typing import Any

from ezm_dmc import config as three_tasks

from rllib_ezm import EZMConfig, sweep

WALKERS = ["dmc:walker-stand", "dmc:walker-walk", "dmc:walker-run"]
OTHERS = ["dmc:cartpole-swingup", "dmc:reacher-easy", "dmc:cheetah-run"]

ENV_STEPS_PER_TASK = 20_000
SAMPLES_PER_TASK = three_tasks.train_batch_size_per_learner // 3
UPDATES_PER_TASK_STEP = 3 * three_tasks.replay_ratio
SMALLEST_BATCH = 64


def on_tasks(tasks: list[str]) -> EZMConfig:
    """The settings of ezm_dmc.py, with what counts all tasks in proportion to their number."""
    count = len(tasks)
    return (
        three_tasks.copy(copy_frozen=False)
        .tasks(tasks, action_repeat=2, envs_per_task=2)
        .training(
            train_batch_size_per_learner=max(SMALLEST_BATCH, SAMPLES_PER_TASK * count),
            replay_ratio=UPDATES_PER_TASK_STEP / count,
            num_steps_sampled_before_learning_starts=1000 * count,
            num_random_steps=1000 * count,
        )
        .reporting(min_sample_timesteps_per_iteration=500 * count)
    )


def stop(trial_id: str, result: Mapping[str, Any]) -> bool:
    steps = [task["env_steps"] for task in result["tasks"].values()]
    return sum(steps) >= ENV_STEPS_PER_TASK * len(steps)


config = sweep(
    {
        **{f"1 task: {task}": on_tasks([task]) for task in WALKERS + OTHERS},
        "3 tasks: walkers": on_tasks(WALKERS),
        "3 tasks: others": on_tasks(OTHERS),
        "6 tasks": on_tasks(WALKERS + OTHERS),
    }
)

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
