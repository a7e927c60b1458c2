"""HumanoidBench's h1 learns to stand and to walk: a scaled-down model for a CPU.

rllib train file tuned_examples/ezm_h1.py
"""

from ezm_dmc import config as walkers

config = (
    walkers.copy(copy_frozen=False)
    .tasks(["hb:h1-stand", "hb:h1-walk"], action_repeat=1, envs_per_task=3)
    .world_model(reward_support=(-0.5, 1.5), value_support=(-5.0, 105.0))
    .training(train_batch_size_per_learner=64, lr=1e-3)
)

stop = {"num_env_steps_sampled_lifetime": 150_000, "time_total_s": 7200}

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
