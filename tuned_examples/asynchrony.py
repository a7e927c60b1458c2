"""The same curve with any number of workers: the default suite, one after the other or all at once.

rllib train file tuned_examples/asynchrony.py --num-samples 3 --experiment-name asynchrony
rllib-ezm report ~/ray_results/asynchrony --reference synchronous

Four variants with four environments per task each, whatever the number of env runners they are
spread over; a run of 5,000 env steps per task takes about ten minutes of one core.
"""

from ezm_dmc import config as walkers

from rllib_ezm import EZMConfig, sweep

ENV_STEPS_PER_TASK = 5_000
ENVS_PER_TASK = 4
TASKS = [task.name for task in walkers.env_config["tasks"]]


def with_environments(envs_per_task: int) -> EZMConfig:
    return (
        walkers.copy(copy_frozen=False)
        .tasks(TASKS, action_repeat=2, envs_per_task=envs_per_task)
        .evaluation(evaluation_interval=2, evaluation_duration=5)
    )


def asynchronous(num_env_runners: int) -> EZMConfig:
    return (
        with_environments(ENVS_PER_TASK // num_env_runners)
        .env_runners(num_env_runners=num_env_runners)
        .learners(num_learners=1)
        .evaluation(evaluation_num_env_runners=1)
        .asynchrony(True, num_reanalyze_workers=1)
    )


config = sweep(
    {
        "synchronous": with_environments(ENVS_PER_TASK),
        "asynchronous, 1 env runner": asynchronous(1),
        "asynchronous, 2 env runners": asynchronous(2),
        "asynchronous, 4 env runners": asynchronous(4),
    }
)

stop = {"num_env_steps_sampled_lifetime": ENV_STEPS_PER_TASK * len(TASKS)}

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
