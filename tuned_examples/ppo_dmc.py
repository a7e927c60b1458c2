"""RLlib's PPO on the tasks of `ezm_dmc.py`: same padding, runner and evaluation, task id as input.

rllib train file tuned_examples/ppo_dmc.py

PPO learns from each step once: it gets 25 times the env steps of the others, in about their time.
"""

from ray.rllib.algorithms.ppo import PPOConfig
from sac_dmc import TASKS

from rllib_ezm.baselines import on_tasks

config = (
    on_tasks(PPOConfig(), TASKS, action_repeat=2, envs_per_task=2)
    .training(
        gamma=0.99,
        lambda_=0.95,
        lr=3e-4,
        train_batch_size_per_learner=3000,
        minibatch_size=250,
        num_epochs=10,
        clip_param=0.2,
        use_kl_loss=False,
        vf_clip_param=1e6,
        grad_clip=0.5,
        entropy_coeff=0.0,
    )
    .rl_module(
        model_config={
            "fcnet_hiddens": [256, 256],
            "fcnet_activation": "tanh",
            "vf_share_layers": False,
            "free_log_std": True,
        }
    )
    .evaluation(evaluation_interval=4, evaluation_duration=5)
    .debugging(seed=0)
)

stop = {"num_env_steps_sampled_lifetime": 300_000}

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
