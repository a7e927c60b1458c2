from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import scripted_task
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_ezm.baselines import HeadPerTask, multi_head, on_tasks
from rllib_ezm.baselines.gradient_similarity import shared_parameters, with_gradient_similarity
from rllib_ezm.cli.experiment_file import load_experiment_file, running_as_script

LENGTHS = (5, 9, 7)
TASKS = [scripted_task(length).name for length in LENGTHS]


def sac(config_class: type[SACConfig] = SACConfig) -> SACConfig:
    return (
        on_tasks(config_class(), [scripted_task(length) for length in LENGTHS])
        .env_runners(rollout_fragment_length=10)
        .reporting(min_sample_timesteps_per_iteration=40, min_time_s_per_iteration=0)
        .training(
            train_batch_size_per_learner=24,
            num_steps_sampled_before_learning_starts=100,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 1000},
        )
        .rl_module(model_config={"fcnet_hiddens": [8, 8], "head_fcnet_hiddens": []})
        .debugging(seed=0, log_level="ERROR")
    )


def train(config: SACConfig, iterations: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    algo = config.build_algo()
    algo.local_replay_buffer.rng = np.random.default_rng(0)  # RLlib does not seed it
    try:
        results = [algo.train() for _ in range(iterations)]
        return results, algo.get_module().state_dict()
    finally:
        algo.stop()


def test_the_probe_reports_every_pair_and_leaves_no_trace(ray_cluster: None) -> None:
    plain, weights = train(sac(), 3)
    probed, probed_weights = train(with_gradient_similarity(sac(), interval=2), 3)
    for name, weight in weights.items():
        assert torch.equal(weight, probed_weights[name]), name
    losses = [results[-1]["learners"][DEFAULT_MODULE_ID]["qf_loss"] for results in (plain, probed)]
    assert losses[0] == losses[1]
    assert probed[0]["num_updates_lifetime"] == 0, "only collected"
    measured = probed[-1]["probes"]["gradient_cosine"]
    assert set(measured) == {"actor", "critic"}
    for pairs in measured.values():
        assert {(a, b) for a, others in pairs.items() for b in others} == {
            (TASKS[0], TASKS[1]),
            (TASKS[0], TASKS[2]),
            (TASKS[1], TASKS[2]),
        }
        assert all(abs(x) <= 1.0 + 1e-6 for others in pairs.values() for x in others.values())
    assert "probes" not in plain[-1]
    updates = [result["num_updates_lifetime"] for result in probed]
    assert updates[1:] == sorted(set(updates[1:]))
    assert updates[-1] > 2
    json.dumps(measured)


def test_nothing_is_reported_between_two_measurements(ray_cluster: None) -> None:
    results, _ = train(with_gradient_similarity(sac(), interval=1000), 3)
    assert ["probes" in result for result in results].count(True) == 1


def test_the_critics_gradients_are_those_of_the_bellman_error(ray_cluster: None) -> None:
    algo = with_gradient_similarity(sac()).build_algo()
    learner = algo.learner_group._learner
    module, config = learner.module[DEFAULT_MODULE_ID], learner.config
    generator = torch.Generator().manual_seed(0)
    rows, obs_dim = 18, module.observation_space.shape[0]
    tasks = torch.arange(rows) % len(LENGTHS)
    one_hot = torch.nn.functional.one_hot(tasks, len(LENGTHS)).float()

    def observations() -> torch.Tensor:
        rest = torch.randn(rows, obs_dim - len(LENGTHS), generator=generator)
        return torch.cat([rest, one_hot], dim=1)

    batch = {
        "obs": observations(),
        "new_obs": observations(),
        "actions": torch.rand(rows, module.action_space.shape[0], generator=generator),
        "rewards": torch.randn(rows, generator=generator),
        "terminateds": torch.arange(rows) % 4 == 0,
        "weights": torch.ones(rows),
        "n_step": torch.ones(rows),
    }
    torch.manual_seed(7)
    measured = learner._measure(batch)["critic"]

    torch.manual_seed(7)
    parameters = shared_parameters(module)["critic"]
    gradients = []
    for task in range(len(LENGTHS)):
        of_task = {name: column[tasks == task] for name, column in batch.items()}
        out = module.forward_train(of_task)
        alpha = torch.exp(learner.curr_log_alpha[DEFAULT_MODULE_ID]).detach()
        next_value = out["q_target_next"] - alpha * out["logp_next_resampled"]
        alive = 1.0 - of_task["terminateds"].float()
        target = (of_task["rewards"] + config.gamma * alive * next_value).detach()
        loss = sum(
            torch.nn.functional.huber_loss(out[name], target)
            for name in ("qf_preds", "qf_twin_preds")
            if name in out
        )
        found = torch.autograd.grad(loss, parameters)
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
    expected = torch.nn.functional.cosine_similarity(
        torch.stack(gradients)[:, None], torch.stack(gradients)[None], dim=-1
    )
    torch.testing.assert_close(measured, expected, rtol=1e-4, atol=1e-5)
    assert expected.fill_diagonal_(0).abs().max() < 0.999, "tasks differ"
    algo.stop()


def test_heads_of_single_tasks_do_not_count(ray_cluster: None) -> None:
    algo = with_gradient_similarity(multi_head(sac()), interval=1).build_algo()
    try:
        while "probes" not in (result := algo.train()):
            pass
        assert set(result["probes"]["gradient_cosine"]) == {"actor", "critic"}
        module = algo.learner_group._learner.module[DEFAULT_MODULE_ID]
        heads = {
            p
            for part in module.modules()
            if isinstance(part, HeadPerTask)
            for p in part.parameters()
        }
        shared = shared_parameters(module)
        assert heads
        assert not heads & {p for parameters in shared.values() for p in parameters}
        assert all(shared.values())
    finally:
        algo.stop()


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="interval=0 must be at least 1"):
        with_gradient_similarity(sac(), interval=0)
    with pytest.raises(ValueError, match="not TQCTorchLearner"):
        with_gradient_similarity(sac(TQCConfig))


def test_the_example_probes_sac_on_the_default_suite() -> None:
    path = Path(__file__).parents[2] / "tuned_examples" / "gradient_similarity_sac.py"
    with running_as_script(path):
        file = load_experiment_file(path)
    file.config.validate()
    assert file.stop is not None
