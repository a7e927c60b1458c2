"""HumanoidBench Medium: nine tasks of the Unitree H1, with the paper's hyper-parameters.

rllib train file tuned_examples/ezm_medium.py

Sized for a GPU; `--smoke` tries it out anywhere in a minute or two. 2e5 updates for 1e6 env steps
per task (Tables 3 and 4, arXiv:2603.01452). What is not set here is EZMConfig's default.
"""

import torch

from rllib_ezm import EZMConfig

TASKS = [
    "hb:h1-stand",
    "hb:h1-walk",
    "hb:h1-run",
    "hb:h1-stair",
    "hb:h1-crawl",
    "hb:h1-slide",
    "hb:h1-pole",
    "hb:h1-hurdle",
    "hb:h1-maze",
]
ENV_STEPS = 1_000_000 * len(TASKS)

config = (
    EZMConfig()
    .tasks(TASKS)
    .learners(num_gpus_per_learner=int(torch.cuda.is_available()))
    .world_model(latent_dim=512, embedding_dim=128)
    .search(num_simulations=32, num_candidates=16, policy_candidates=4, inference_precision="auto")
    .replay(capacity_per_task=1_000_000)
    .training(
        lr=1e-4,
        train_batch_size_per_learner=512,
        unroll_steps=5,
        td_steps=5,
        replay_ratio=200_000 / ENV_STEPS,
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
