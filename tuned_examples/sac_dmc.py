"""RLlib's SAC on the tasks of `ezm_dmc.py`: same padding, runner and evaluation, task id as input.

rllib train file tuned_examples/sac_dmc.py
"""

from ray.rllib.algorithms.sac import SACConfig

from rllib_ezm.baselines import on_tasks

TASKS = ["dmc:walker-stand", "dmc:walker-walk", "dmc:walker-run"]

TRAINING = {
    "gamma": 0.99,
    "tau": 0.005,
    "actor_lr": 3e-4,
    "critic_lr": 3e-4,
    "alpha_lr": 3e-4,
    "initial_alpha": 0.1,
    "train_batch_size_per_learner": 128,
    # One update per env step (decision), summed over the tasks and their slots.
    "training_intensity": 128.0,
    "num_steps_sampled_before_learning_starts": 3000,
    "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 600_000},
}
# As wide as the layers of ezm_dmc.py. RLlib's Q functions have two such encoders, of observation
# and action, and three layers that join them. Twice as wide and with twice the batch, an update
# takes twice as long, most of it not arithmetic.
NETWORK = {"fcnet_hiddens": [128, 128], "fcnet_activation": "relu", "head_fcnet_hiddens": []}


def like_sac(config: SACConfig) -> SACConfig:
    """SAC's tasks, settings and evaluation for SAC or an algorithm derived from it."""
    return (
        on_tasks(config, TASKS, action_repeat=2, envs_per_task=2)
        .env_runners(rollout_fragment_length=1)
        .training(**TRAINING)
        .rl_module(model_config=NETWORK)
        .evaluation(evaluation_interval=6, evaluation_duration=5)
        .reporting(min_sample_timesteps_per_iteration=500, min_time_s_per_iteration=0)
        .debugging(seed=0)
    )


config = like_sac(SACConfig())

stop = {"num_env_steps_sampled_lifetime": 12_000}

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
