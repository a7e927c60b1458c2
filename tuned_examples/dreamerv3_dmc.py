"""RLlib's DreamerV3 on the tasks of `ezm_dmc.py`: same padding, runner and evaluation.

rllib train file tuned_examples/dreamerv3_dmc.py
"""

from ray.rllib.algorithms.dreamerv3 import DreamerV3Config
from sac_dmc import TASKS, stop  # noqa: F401

from rllib_ezm.baselines import MultiTaskDreamerV3, on_tasks

config = (
    on_tasks(
        DreamerV3Config(algo_class=MultiTaskDreamerV3), TASKS, action_repeat=2, envs_per_task=2
    )
    # The size and ratio that a CPU can bear; the authors use XS and more, and 512.
    .training(model_size="nano", training_ratio=64, gamma=0.99, symlog_obs=True)
    .evaluation(evaluation_interval=6, evaluation_duration=5)
    .reporting(min_sample_timesteps_per_iteration=500, min_time_s_per_iteration=0)
    .debugging(seed=0)
)

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
