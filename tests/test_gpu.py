"""What a CUDA device must do as the CPU does; skipped where there is none."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from helpers.replay_episodes import make_buffer, make_episode
from helpers.tiny import scripted_task, tiny_config
from helpers.tiny_model import ACTION_DIM, ACTION_MASK, OBS_DIM, random_inputs, tiny_model

from rllib_ezm.execution.device_columns import DeviceColumns
from rllib_ezm.models.unroll import unroll_world_model
from rllib_ezm.search import SearchNoise, SearchSettings, draw_noise
from rllib_ezm.search.gumbel_planner import GumbelPlanner

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_plan_is_that_of_the_cpu():
    settings, batch = SearchSettings(num_simulations=16, num_candidates=8), 32
    model = tiny_model()
    task_ids = torch.arange(batch) % 2
    observations = torch.randn(batch, OBS_DIM)
    noise = draw_noise(batch, ACTION_DIM, settings, "cpu")
    plans = []
    for device in ("cpu", "cuda"):
        planner = GumbelPlanner(
            copy.deepcopy(model).to(device), ACTION_MASK.to(device), value_reduction="mean"
        )
        tasks = task_ids.to(device)
        root = planner.root(observations.to(device), tasks).root
        drawn = SearchNoise(*(x.to(device) for x in noise))
        plans.append(planner.plan(root, tasks, settings, noise=drawn))
    torch.testing.assert_close(plans[1].value.cpu(), plans[0].value, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(plans[1].action.cpu(), plans[0].action, rtol=0.0, atol=1e-2)


def test_gradients_are_those_of_the_cpu():
    model, inputs = tiny_model().train(), random_inputs()
    gradients = []
    for device in ("cpu", "cuda"):
        copied = copy.deepcopy(model).to(device)
        unroll = unroll_world_model(copied, *(x.to(device) for x in inputs))
        (unroll.value_logits.square().mean() + unroll.reward_logits.square().mean()).backward()
        gradients.append(copied.dynamics_model.mix.weight.grad.cpu())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)


def test_a_replay_buffer_on_the_device_draws_what_one_on_the_host_does():
    on_card = functools.partial(DeviceColumns, device="cuda")
    host, device = make_buffer(2, 40), make_buffer(2, 40, make_columns=on_card)
    for buffer in (host, device):
        for number in range(6):
            buffer.add(make_episode(number % 2, number, 15, terminated=True))
    first, second = host.sample(33), device.sample(33)
    assert second["obs"].device.type == "cuda"
    for name, column in first.items():
        torch.testing.assert_close(
            torch.as_tensor(second[name]).cpu(), torch.as_tensor(column), rtol=0.0, atol=0.0
        )


@pytest.mark.parametrize("replay_device", ["host", "learner"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_runs_on_the_device(ray_cluster, precision, replay_device):
    config = tiny_config([scripted_task(5), scripted_task(9)])
    config.learners(num_gpus_per_learner=1).training(train_precision=precision)
    config.search(inference_precision=precision).replay(replay_device=replay_device)
    algo = config.build_algo()
    try:
        result = {}
        while algo.num_updates < 5:
            result = algo.train()
        assert algo.learner_group._learner.device.type == "cuda"
        assert torch.isfinite(torch.tensor(result["learners"]["default_policy"]["gradient_norm"]))
    finally:
        algo.stop()
