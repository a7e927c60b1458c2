from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from helpers.tiny import scripted_task
from ray.rllib.algorithms import AlgorithmConfig
from ray.rllib.algorithms.dreamerv3 import DreamerV3Config
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from torch import nn

from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner
from rllib_ezm.baselines import HeadPerTask, MultiTaskDreamerV3, WithTaskId, multi_head, on_tasks
from rllib_ezm.cli.experiment_file import load_experiment_file, running_as_script

EXAMPLES = Path(__file__).parents[2] / "tuned_examples"
LENGTHS = (5, 9)
REPLAY = {"type": "EpisodeReplayBuffer", "capacity": 1000}


def off_policy(config: SACConfig) -> SACConfig:
    return config.training(
        train_batch_size_per_learner=8,
        num_steps_sampled_before_learning_starts=20,
        replay_buffer_config=REPLAY,
    ).rl_module(model_config={"fcnet_hiddens": [8, 8], "head_fcnet_hiddens": []})


def two_tasks(config: AlgorithmConfig) -> AlgorithmConfig:
    return (
        on_tasks(config, [scripted_task(length) for length in LENGTHS])
        .env_runners(rollout_fragment_length=10)
        .evaluation(evaluation_interval=1, evaluation_duration=2)
        .reporting(min_sample_timesteps_per_iteration=40, min_time_s_per_iteration=0)
        .debugging(seed=0, log_level="ERROR")
    )


def ppo() -> AlgorithmConfig:
    config = two_tasks(PPOConfig())
    return config.training(train_batch_size_per_learner=20, minibatch_size=10, num_epochs=1)


def dreamer() -> AlgorithmConfig:
    config = two_tasks(DreamerV3Config(algo_class=MultiTaskDreamerV3))
    return config.training(
        model_size="nano",
        training_ratio=4,
        batch_size_B=2,
        batch_length_T=4,
        horizon_H=3,
        symlog_obs=True,
        replay_buffer_config=REPLAY,
    )


@pytest.mark.parametrize(
    "make",
    [
        ppo,
        dreamer,
        lambda: off_policy(two_tasks(SACConfig())),
        lambda: off_policy(two_tasks(TQCConfig())),
        lambda: multi_head(off_policy(two_tasks(SACConfig()))),
    ],
    ids=["ppo", "dreamerv3", "sac", "tqc", "mh_sac"],
)
def test_an_algorithm_of_rllib_trains_on_all_tasks_and_is_evaluated_on_each(ray_cluster, make):
    algo = make().build_algo()
    try:
        before = [p.detach().clone() for p in algo.get_module().parameters()]
        result = algo.train()
        after = list(algo.get_module().parameters())
        assert any(not torch.equal(x, y) for x, y in zip(before, after, strict=True))
        steps = algo.env_runner_group.local_env_runner.task_steps
        assert abs(steps[0] - steps[1]) <= max(LENGTHS) + 1
        evaluated = result["evaluation"]["tasks"]
        assert [task["episodes"] for task in evaluated.values()] == [2, 2]
    finally:
        algo.stop()


def test_training_intensity_counts_the_env_steps_of_all_slots(ray_cluster):
    config = on_tasks(SACConfig(), [scripted_task(length) for length in LENGTHS], envs_per_task=3)
    config = off_policy(config).env_runners(rollout_fragment_length=1)
    config.reporting(min_sample_timesteps_per_iteration=60, min_time_s_per_iteration=0)
    algo = config.training(training_intensity=8.0).debugging(seed=0).build_algo()
    try:
        result = algo.train()
        samples = result["learners"]["default_policy"]["num_module_steps_trained_lifetime"]
        env_steps = result["num_env_steps_sampled_lifetime"]
        assert samples / 8 == pytest.approx(env_steps - 20, abs=2 * 3 * len(LENGTHS)), (
            "an update of 8 samples for every env step"
        )
    finally:
        algo.stop()


def test_each_task_has_heads_of_its_own():
    heads = HeadPerTask([nn.Linear(3, 2), nn.Linear(3, 2)])
    latent, tasks = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    found = heads(torch.cat([latent, nn.functional.one_hot(tasks, 2).float()], dim=-1))
    expected = torch.stack([heads[task](x) for task, x in zip(tasks, latent, strict=True)])
    torch.testing.assert_close(found, expected)
    found[tasks == 0].sum().backward()
    assert heads[0].weight.grad.abs().sum() > 0
    assert heads[1].weight.grad.abs().sum() == 0


def test_the_task_id_is_the_end_of_the_observation(ray_cluster):
    """The heads rely on it."""
    runner = MultiTaskEnvRunner(config=two_tasks(PPOConfig()))
    for episode in runner.sample(num_timesteps=20):
        one_hot = nn.functional.one_hot(torch.tensor(episode.custom_data["task_id"]), 2)
        for observation in episode.get_observations():
            assert observation[-2:].tolist() == one_hot.tolist()


def test_the_task_id_follows_what_the_encoder_makes_of_the_observation():
    class Encoder(nn.Module):
        def forward(self, batch):
            return {ENCODER_OUT: batch[Columns.OBS].sum(-1, keepdim=True)}

    batch = {Columns.OBS: torch.tensor([[5.0, 0.0, 1.0]])}
    assert WithTaskId(Encoder(), 2)(batch)[ENCODER_OUT].tolist() == [[6.0, 0.0, 1.0]]


@pytest.mark.parametrize("name", ["sac", "mh_sac", "tqc", "ppo", "dreamerv3"])
def test_the_examples_are_valid_and_of_the_default_suite(name):
    path = EXAMPLES / f"{name}_dmc.py"
    with running_as_script(path):
        file = load_experiment_file(path)
    with running_as_script(EXAMPLES / "ezm_dmc.py"):
        default = load_experiment_file(EXAMPLES / "ezm_dmc.py")
    file.config.validate()
    for setting in ("envs_per_task", "termination"):
        assert file.config.env_config[setting] == default.config.env_config[setting]
    tasks, expected = (
        [dataclasses.replace(task, make=print) for task in f.config.env_config["tasks"]]
        for f in (file, default)
    )
    assert tasks == expected
