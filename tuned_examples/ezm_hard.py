"""HumanoidBench Hard: fourteen tasks of the H1 with hands, with the paper's hyper-parameters.

rllib train file tuned_examples/ezm_hard.py

Sized for a GPU; `--smoke` tries it out anywhere in a minute or two. 6e5 updates for 1e6 env steps
per task (Tables 3 and 4, arXiv:2603.01452). What is not set here is EZMConfig's default.
"""

import torch

from rllib_ezm import EZMConfig

TASKS = [
    "hb:h1hand-stand",
    "hb:h1hand-walk",
    "hb:h1hand-run",
    "hb:h1hand-stair",
    "hb:h1hand-crawl",
    "hb:h1hand-slide",
    "hb:h1hand-pole",
    "hb:h1hand-hurdle",
    "hb:h1hand-maze",
    "hb:h1hand-sit_simple",
    "hb:h1hand-sit_hard",
    "hb:h1hand-balance_simple",
    "hb:h1hand-balance_hard",
    "hb:h1hand-reach",
]
ENV_STEPS = 1_000_000 * len(TASKS)

config = (
    EZMConfig()
    .tasks(TASKS)
    .learners(num_gpus_per_learner=int(torch.cuda.is_available()))
    # Reach pays up to 20 a step, 2000 discounted: far beyond the paper's +-299.
    .world_model(latent_dim=512, embedding_dim=128, value_support=(-2100.0, 2100.0))
    .search(num_simulations=32, num_candidates=16, policy_candidates=4, inference_precision="auto")
    # 35 GB when full, of which 1e6 env steps per task touch half.
    .replay(capacity_per_task=2_000_000, max_replay_bytes=40 * 2**30)
    .training(
        lr=1e-4,
        train_batch_size_per_learner=512,
        unroll_steps=5,
        td_steps=5,
        replay_ratio=600_000 / ENV_STEPS,
        num_steps_sampled_before_learning_starts=1000 * len(TASKS),
        num_random_steps=1000 * len(TASKS),
    )
    .evaluation(evaluation_interval=20, evaluation_duration=3)
    .reporting(min_sample_timesteps_per_iteration=1000 * len(TASKS))
    .debugging(seed=0)
)

stop = {"num_env_steps_sampled_lifetime": ENV_STEPS}

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
