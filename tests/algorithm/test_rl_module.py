from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers.tiny import build_module, scripted_task, tiny_config
from ray.rllib.core.columns import Columns

from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.algorithm.rl_module import (
    POLICY_MEAN,
    POLICY_STD,
    SEARCH_VALUE,
    WEIGHTS_FILE,
    EZMTorchRLModule,
)
from rllib_ezm.models.masks import prefix_mask
from rllib_ezm.models.policy_distribution import MAX_ACTION

LEARNER_ONLY = ("target_model", "variance_window", "model.projector", "model.predictor")


def two_task_config() -> EZMConfig:
    """Task 0: D=2, A=1; task 1: D=3, A=3."""
    return tiny_config([scripted_task(5, 2, 1), scripted_task(6, 3, 3)])


def acting_batch(rows: int = 6) -> dict[str, Any]:
    """Alternating tasks with padded random observations."""
    task_id = torch.arange(rows) % 2
    return {
        Columns.OBS: {
            "obs": torch.randn(rows, 3) * prefix_mask([2, 3])[task_id],
            "task_id": task_id,
            "action_mask": prefix_mask([1, 3])[task_id],
        }
    }


def seeded(forward: Any, batch: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    result: dict[str, torch.Tensor] = forward(batch, **kwargs)
    return result


def test_the_acting_module_has_no_learner_parts() -> None:
    learner_module = build_module(two_task_config())
    acting_module = build_module(two_task_config(), inference_only=True)
    everything, inference = set(learner_module.state_dict()), set(acting_module.state_dict())
    missing = everything - inference
    assert inference < everything
    assert {name.split(".")[0] for name in missing} == {"target_model", "variance_window", "model"}
    for part in LEARNER_ONLY:
        assert any(name.startswith(f"{part}.") for name in missing)
        assert not any(name.startswith(f"{part}.") for name in inference)
    assert set(learner_module.get_state(inference_only=True)) == inference


@pytest.mark.parametrize("inference_state", [False, True])
def test_the_acting_module_loads_a_learners_state(inference_state: bool) -> None:
    learner_module = build_module(two_task_config())
    torch.manual_seed(1)
    for parameter in learner_module.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    acting_module = build_module(two_task_config(), inference_only=True)
    acting_module.set_state(learner_module.get_state(inference_only=inference_state))
    batch = acting_batch()
    ours = seeded(acting_module.forward_inference, batch)
    theirs = seeded(learner_module.forward_inference, batch)
    for name in (Columns.ACTIONS, SEARCH_VALUE, POLICY_MEAN, POLICY_STD):
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)


def test_target_and_online_network_start_equal() -> None:
    module = build_module(two_task_config())
    for online, target in zip(
        module.model.parameters(), module.target_model.parameters(), strict=True
    ):
        assert torch.equal(online, target)
        assert online.requires_grad
        assert not target.requires_grad


@pytest.mark.parametrize("simulations_at_eval", [None, 0])
def test_masked_action_dims_are_exactly_zero(simulations_at_eval: int | None) -> None:
    config = two_task_config().search(num_simulations_at_eval=simulations_at_eval)
    module = build_module(config.training(num_random_steps=10))
    batch = acting_batch()
    masked = batch[Columns.OBS]["action_mask"] == 0
    for output in (
        module.forward_inference(batch),
        module.forward_exploration(batch, t=0),
        module.forward_exploration(batch, t=10),
    ):
        assert output[SEARCH_VALUE].shape == (6,)
        for name in (Columns.ACTIONS, POLICY_MEAN, POLICY_STD):
            assert output[name].shape == (6, 3)
            assert (output[name][masked] == 0.0).all()
        assert (output[Columns.ACTIONS].abs() <= 1.0).all()
    explored = module.forward_exploration(batch, t=10)[Columns.ACTIONS]
    assert (explored[~masked] != 0.0).all()


def test_the_warm_up_acts_uniformly_at_random() -> None:
    module = build_module(two_task_config().training(num_random_steps=10))
    batch = acting_batch(rows=600)
    owned = batch[Columns.OBS]["action_mask"] > 0
    random = seeded(module.forward_exploration, batch, t=9)
    actions = random[Columns.ACTIONS][owned]
    assert not torch.allclose(random[Columns.ACTIONS], random[POLICY_MEAN].tanh())
    # 1200 draws of U(-1, 1): standard error of the mean 0.017, of the mean square 0.0086.
    assert abs(float(actions.mean())) < 0.1
    assert abs(float(actions.square().mean()) - 1 / 3) < 0.05
    for kwargs in ({"t": 10}, {}):
        after = seeded(module.forward_exploration, batch, **kwargs)
        torch.testing.assert_close(after[Columns.ACTIONS], after[POLICY_MEAN].tanh())
        assert not after[POLICY_STD].any()


def one_candidate_config() -> EZMConfig:
    """The search's only candidate is a wide one, so its spread is the exploration's."""
    return two_task_config().search(num_simulations=1, num_candidates=1, policy_candidates=0)


@pytest.mark.parametrize(("wide_at_eval", "ratio"), [(False, 3.0), (True, 1.0)])
def test_evaluation_uses_the_policys_own_std(wide_at_eval: bool, ratio: float) -> None:
    config = one_candidate_config().search(wide_candidates_at_eval=wide_at_eval)
    module = build_module(config)
    batch = acting_batch()
    explored = torch.atanh(seeded(module.forward_exploration, batch)[Columns.ACTIONS])
    evaluated = torch.atanh(seeded(module.forward_inference, batch)[Columns.ACTIONS])
    torch.testing.assert_close(explored, ratio * evaluated, rtol=1e-3, atol=1e-6)
    assert explored.abs().max() > 0.0


def test_no_simulation_at_evaluation_acts_with_the_squashed_mean() -> None:
    module = build_module(two_task_config().search(num_simulations_at_eval=0))
    torch.manual_seed(2)
    for parameter in module.model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    batch = acting_batch()
    observation = batch[Columns.OBS]
    module.eval()
    with torch.no_grad():
        embedding = module.model.embed(observation["task_id"])
        latent = module.model.represent(observation["obs"], observation["task_id"], embedding)
        mean = module.model.predict(latent, embedding, root=True).mean
    expected = torch.tanh(mean).clamp(-MAX_ACTION, MAX_ACTION) * observation["action_mask"]
    actions = module.forward_inference(batch)[Columns.ACTIONS]
    torch.testing.assert_close(actions, expected)
    assert actions.abs().max() > 1e-3


def assert_same_weights(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0)


def test_weights_are_saved_so_that_they_can_be_read_without_unpickling(tmp_path: Path) -> None:
    module = build_module(two_task_config())
    module.save_to_path(tmp_path)
    assert_same_weights(
        module.state_dict(), safetensors.torch.load_file(tmp_path / WEIGHTS_FILE, "cpu")
    )
    restored = EZMTorchRLModule.from_checkpoint(tmp_path)
    assert_same_weights(module.state_dict(), restored.state_dict())
    for file in tmp_path.glob("*.pkl"):
        assert file.stat().st_size < 20_000, "settings, but no weights"


def test_only_the_state_that_is_given_is_saved(tmp_path: Path) -> None:
    module = build_module(two_task_config())
    state = module.get_state(inference_only=True)
    module.save_to_path(tmp_path, state=state)
    acting = build_module(two_task_config(), inference_only=True)
    acting.restore_from_path(tmp_path.as_posix())
    inference = {name: module.state_dict()[name] for name in state}
    assert_same_weights(acting.state_dict(), inference)


def test_a_module_is_saved_to_a_uri_and_to_a_folder_of_its_own(tmp_path: Path) -> None:
    module = build_module(two_task_config())
    for folder in (module.save_to_path(f"file://{tmp_path}/uri"), module.save_to_path()):
        assert (Path(folder) / WEIGHTS_FILE).is_file()
        restored = build_module(two_task_config())
        restored.restore_from_path(f"file://{folder}")
        assert_same_weights(module.state_dict(), restored.state_dict())


def test_a_module_has_no_components_to_restore(tmp_path: Path) -> None:
    module = build_module(two_task_config())
    with pytest.raises(ValueError, match="no component 'actor'"):
        module.restore_from_path(tmp_path, component="actor")


def randomized(config: EZMConfig) -> EZMTorchRLModule:
    """A module whose heads are not zero, with the same parameters for every config."""
    torch.manual_seed(1)
    module = build_module(config)
    for parameter in module.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("constant", ["c_visit", "c_scale"])
def test_the_constants_of_the_search_reach_training_and_evaluation(constant: str) -> None:
    changed = two_task_config().search(**{constant: 0.0 if constant == "c_scale" else 5e3})
    default, other = randomized(two_task_config()), randomized(changed)
    torch.manual_seed(2)
    observations = acting_batch()[Columns.OBS]
    root = default._planner.root(observations["obs"], observations["task_id"]).root
    for settings in ("settings", "evaluation_settings"):
        assert getattr(getattr(other, settings), constant) == getattr(changed, constant)
        weights = []
        for module in (default, other):
            torch.manual_seed(0)
            plan = module._planner.plan(root, observations["task_id"], getattr(module, settings))
            weights.append(plan.weights)
        if constant == "c_scale":  # nothing but the uniform prior is left
            torch.testing.assert_close(weights[1], torch.full_like(weights[1], 1 / 4))
            assert (weights[0] - 1 / 4).abs().max() > 0.05
        else:
            best = weights[0].amax(dim=1), weights[1].amax(dim=1)
            assert (best[1] >= best[0]).all()
            assert (best[1] - best[0]).max() > 0.2
