from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import fill_replay, scripted_task, spaces, tiny_config
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rllib_ezm import EZMConfig
from rllib_ezm.algorithm.callbacks import GradientSimilarity, ModelErrorProbe, Probe, measure
from rllib_ezm.algorithm.learner import EZMTorchLearner
from rllib_ezm.cli.experiment_file import load_experiment_file, running_as_script

TASKS = ("gym:Pendulum-v1", "dmc:cartpole-balance")
PROBES = (GradientSimilarity, ModelErrorProbe)
MODULES = {"representation", "dynamics", "reward", "value_policy"}


def learner_config() -> EZMConfig:
    return tiny_config([scripted_task(5, 2, 1), scripted_task(6, 3, 2)])


def build(config: EZMConfig) -> EZMTorchLearner:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return config.build_learner(spaces=spaces(config.get_task_set()))


def update(learner: EZMTorchLearner, batch: dict[str, np.ndarray]) -> None:
    learner.update(
        batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(copy.deepcopy(batch))}, env_steps=8),
        timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 0},
    )


def assert_equal(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_sample_losses_have_the_gradient_of_an_update() -> None:
    config = learner_config().training(grad_clip=None)
    batch = fill_replay(config, length=3, episodes=20).sample(8)
    one, other = build(config), build(config)
    torch.manual_seed(5)
    update(one, batch)
    torch.manual_seed(5)
    losses = other.gradient_step.sample_losses(
        {name: torch.as_tensor(x) for name, x in batch.items()}
    )
    losses.mean().backward()
    expected = {n: p.grad for n, p in one.module[DEFAULT_MODULE_ID].named_parameters()}
    for name, parameter in other.module[DEFAULT_MODULE_ID].named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name], msg=name)
    assert sum(p.grad is not None for p in other.module[DEFAULT_MODULE_ID].parameters()) > 20


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_leaves_no_trace_in_the_learner(probe: type[Probe]) -> None:
    config = learner_config()
    batch = fill_replay(config, length=3, episodes=20).sample(8)
    learner = build(config)
    update(learner, batch)
    module = learner.module[DEFAULT_MODULE_ID]
    state = copy.deepcopy(learner.get_state())
    generator, gradients = torch.get_rng_state(), [p.grad for p in module.parameters()]
    kept = [None if gradient is None else gradient.clone() for gradient in gradients]
    one = measure(learner, probe=probe, batch=batch, seed=3)
    assert_equal(torch.get_rng_state(), generator)
    after = learner.get_state()
    assert_equal(dict(after["rl_module"][DEFAULT_MODULE_ID]), state["rl_module"][DEFAULT_MODULE_ID])
    assert repr(after["metrics_logger"]) == repr(state["metrics_logger"])
    assert module.training
    assert all(p.grad is g for p, g in zip(module.parameters(), gradients, strict=True))
    for gradient, before in zip(gradients, kept, strict=True):
        if before is not None:
            assert_equal(gradient, before)
    again = measure(learner, probe=probe, batch=batch, seed=3)
    for name, values in one.items():
        np.testing.assert_array_equal(values, again[name])


def run_config(num_learners: int = 0) -> EZMConfig:
    return (
        tiny_config(list(TASKS), max_episode_steps=20)
        .training(replay_ratio=0.3, num_random_steps=40)
        .learners(num_learners=num_learners)
        .reporting(min_sample_timesteps_per_iteration=40)
    )


def run(config: EZMConfig, iterations: int) -> tuple[list[dict[str, Any]], dict[str, Any], Any]:
    """Results, the learner's state of module and optimizer, and the next batch."""
    algorithm = config.build_algo()
    try:
        results = [algorithm.train() for _ in range(iterations)]
        state = algorithm.learner_group.get_state(components="learner")["learner"]
        return results, state, algorithm.replay_buffer.sample(9)
    finally:
        algorithm.stop()


def test_training_is_the_same_with_and_without_probes(ray_cluster: None) -> None:
    plain, state, batch = run(run_config(), 4)
    probes = [functools.partial(probe, interval=10, batch_size=6) for probe in PROBES]
    probed, probed_state, probed_batch = run(run_config().callbacks(callbacks_class=probes), 4)
    assert_equal(
        dict(probed_state["rl_module"][DEFAULT_MODULE_ID]),
        dict(state["rl_module"][DEFAULT_MODULE_ID]),
    )
    for name, column in batch.items():
        np.testing.assert_array_equal(probed_batch[name], column)
    for one, other in zip(plain, probed, strict=True):
        assert one["num_updates_lifetime"] == other["num_updates_lifetime"]
        ours, theirs = (r.get("learners", {}).get(DEFAULT_MODULE_ID, {}) for r in (one, other))
        assert set(ours) == set(theirs)
        for name in ("reward_loss", "support_overflow", "gradient_norm", "importance_weight"):
            assert ours.get(name) == theirs.get(name)
    updates = [result["num_updates_lifetime"] for result in probed]
    assert updates[0] < 10 < updates[1]
    due = [now // 10 > before // 10 for before, now in zip([0, *updates], updates, strict=False)]
    assert ["probes" in result for result in probed] == due == [False, True, True, True]

    measured = probed[-1]["probes"]
    assert set(measured["seconds"]) == {"gradient_cosine", "model_errors"}
    assert set(measured["gradient_cosine"]) == MODULES
    for pairs in measured["gradient_cosine"].values():
        assert list(pairs) == [TASKS[0]]
        assert list(pairs[TASKS[0]]) == [TASKS[1]]
        assert -1.0 <= pairs[TASKS[0]][TASKS[1]] <= 1.0
    for name, first, last in (
        ("reward_error", 0, 1),
        ("latent_error", 1, 2),
        ("value_error", 0, 2),
        ("value_variance", 0, 2),
        ("path_gap", 0, 1),
    ):
        for task in TASKS:
            depths = [f"unroll_{k}" for k in range(first, last + 1)]
            assert list(measured[name][task]) == depths
    for name in ("age", "reward_overflow", "value_overflow"):
        assert set(measured[name]) == set(TASKS)
    json.dumps(measured)


def test_probes_reach_a_remote_learner(ray_cluster: None) -> None:
    probes = [functools.partial(probe, interval=5) for probe in PROBES]
    results, _, _ = run(run_config(num_learners=1).callbacks(callbacks_class=probes), 2)
    assert set(results[-1]["probes"]["gradient_cosine"]) == MODULES
    assert "reward_error" in results[-1]["probes"]


def test_the_example_probes_the_default_suite() -> None:
    path = Path(__file__).parents[2] / "tuned_examples" / "gradient_similarity.py"
    with running_as_script(path):
        file = load_experiment_file(path)
    file.config.validate()
    assert file.config.callbacks_class == list(PROBES)
    assert file.stop is not None


def test_wrong_use_is_refused(ray_cluster: None) -> None:
    with pytest.raises(ValueError, match="GradientSimilarity: interval=0 must be at least 1"):
        GradientSimilarity(interval=0)
    config = PPOConfig().environment("CartPole-v1").env_runners(num_env_runners=0)
    with pytest.raises(ValueError, match="ModelErrorProbe probes EZM, not PPO"):
        config.callbacks(ModelErrorProbe).build_algo()
