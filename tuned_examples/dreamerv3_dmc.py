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
    .training(
        model_size="mini",
        # Short rows, which states need no memory for: four times the updates of 16 x 64 in the
        # same time. The ratio makes them two after each env step of the six slots.
        batch_size_B=16,
        batch_length_T=16,
        training_ratio=85,
        # Ten times the authors': a small model, and thousands of updates instead of 100,000s.
        world_model_lr=1e-3,
        actor_lr=3e-4,
        critic_lr=3e-4,
        gamma=0.99,
        symlog_obs=True,
    )
    .evaluation(evaluation_interval=6, evaluation_duration=5)
    .reporting(min_sample_timesteps_per_iteration=500, min_time_s_per_iteration=0)
    .debugging(seed=0)
)

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
