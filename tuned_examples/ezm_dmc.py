"""The default suite: walker stand, walk and run, one world model.

rllib train file tuned_examples/ezm_dmc.py
"""

from rllib_ezm import EZMConfig

config = (
    EZMConfig()
    .tasks(
        ["dmc:walker-stand", "dmc:walker-walk", "dmc:walker-run"],
        action_repeat=2,
        envs_per_task=2,
    )
    .world_model(
        latent_dim=128,
        embedding_dim=32,
        action_embedding_dim=32,
        num_blocks=1,
        num_value_heads=2,
        head_dim=128,
        projection_dim=128,
        reward_support=(-1.0, 3.0),
        value_support=(-10.0, 220.0),
        log_std_min=-4.0,
        log_std_max=0.5,
    )
    .search(
        num_simulations=8,
        num_candidates=8,
        policy_candidates=4,
        wide_std_factor=1.5,
        wide_candidates_at_eval=True,
        minmax_delta=1.0,
        inference_precision="auto",
    )
    .replay(capacity_per_task=200_000)
    .training(
        gamma=0.99,
        lr=[[0, 1e-3], [75_000, 1e-3], [100_000, 1e-4]],
        train_batch_size_per_learner=66,
        replay_ratio=0.5,
        num_steps_sampled_before_learning_starts=3000,
        num_random_steps=3000,
        cross_task_probability=0.25,
        replayed_candidate=True,
        weight_sync_interval=10,
        target_tau=0.02,
        value_mixing="td",
        policy_loss="distribution",
    )
    .evaluation(evaluation_interval=4, evaluation_duration=3)
    .reporting(min_sample_timesteps_per_iteration=1500)
    .debugging(seed=0)
)

stop = {"num_env_steps_sampled_lifetime": 100_000, "time_total_s": 5400}

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
