"""RLlib's SAC on the tasks of `ezm_dmc.py`: same padding, runner and evaluation, task id as input.

rllib train file tuned_examples/sac_dmc.py
"""

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.connectors.env_to_module import FlattenObservations

from rllib_ezm.env_runner import ENV_NAME, MultiTaskEnvRunner
from rllib_ezm.evaluation import evaluate_per_task
from rllib_ezm.tasks import resolve_task

TASKS = ["dmc:walker-stand", "dmc:walker-walk", "dmc:walker-run"]

config = (
    SACConfig()
    .environment(
        ENV_NAME,
        env_config={
            "tasks": [resolve_task(task, action_repeat=2) for task in TASKS],
            "envs_per_task": 2,
        },
    )
    .env_runners(
        env_runner_cls=MultiTaskEnvRunner,
        num_env_runners=0,
        rollout_fragment_length=1,
        env_to_module_connector=lambda env, spaces, device: FlattenObservations(),
    )
    .training(
        gamma=0.99,
        tau=0.005,
        actor_lr=3e-4,
        critic_lr=3e-4,
        alpha_lr=3e-4,
        initial_alpha=0.1,
        train_batch_size_per_learner=256,
        # One update per env step (decision), summed over the tasks.
        training_intensity=256.0,
        num_steps_sampled_before_learning_starts=3000,
        replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 600_000},
    )
    .rl_module(
        model_config={
            "fcnet_hiddens": [256, 256],
            "fcnet_activation": "relu",
            "head_fcnet_hiddens": [],
        }
    )
    .evaluation(
        evaluation_interval=10,
        evaluation_duration=3,
        evaluation_config=AlgorithmConfig.overrides(explore=False),
        custom_evaluation_function=evaluate_per_task,
    )
    .reporting(min_sample_timesteps_per_iteration=500, min_time_s_per_iteration=0)
    .debugging(seed=0)
)

stop = {"num_env_steps_sampled_lifetime": 60_000}

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
