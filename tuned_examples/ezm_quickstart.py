"""Cartpole balance and swing-up at once: visible learning within minutes on a laptop.

rllib train file tuned_examples/ezm_quickstart.py
"""

from rllib_ezm import EZMConfig

config = (
    EZMConfig()
    .tasks(["dmc:cartpole-balance", "dmc:cartpole-swingup"], action_repeat=4, envs_per_task=2)
    .world_model(
        latent_dim=128,
        embedding_dim=16,
        action_embedding_dim=32,
        num_blocks=1,
        num_value_heads=2,
        head_dim=128,
        projection_dim=128,
        reward_support=(-1.0, 5.0),
        value_support=(-10.0, 220.0),
        log_std_min=-4.0,
        log_std_max=0.5,
    )
    .search(num_simulations=8, num_candidates=8, policy_candidates=4, inference_precision="auto")
    .replay(capacity_per_task=100_000)
    .training(
        gamma=0.98,
        lr=1e-3,
        train_batch_size_per_learner=64,
        replay_ratio=0.5,
        num_steps_sampled_before_learning_starts=1000,
        num_random_steps=1000,
        weight_sync_interval=10,
        target_tau=0.02,
        value_mixing="td",
        policy_loss="distribution",
    )
    .evaluation(evaluation_interval=4, evaluation_duration=3)
    .debugging(seed=0)
)

stop = {"time_total_s": 900}

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
