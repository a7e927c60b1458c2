"""HumanoidBench's h1 in stand, walk and crawl: a small world model for a CPU.

rllib train file tuned_examples/ezm_h1.py

The model and search of ezm_dmc.py. Joint targets drawn as widely as the walkers' torques throw the
robot over, so the policy is narrower, and the values of a robot that falls differ by less.
"""

from ezm_dmc import config as walkers

config = (
    walkers.copy(copy_frozen=False)
    .tasks(["hb:h1-stand", "hb:h1-walk", "hb:h1-crawl"], action_repeat=1, envs_per_task=2)
    .world_model(reward_support=(-0.5, 1.5), value_support=(-5.0, 105.0), log_std_max=-0.7)
    .search(minmax_delta=0.2)
    .training(lr=1e-3)
    .evaluation(evaluation_interval=6)
)

stop = {"num_env_steps_sampled_lifetime": 150_000, "time_total_s": 7200}

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
