from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import fill_replay, scripted_task, spaces, tiny_config
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.algorithm.learner import PRIORITIES, EZMTorchLearner
from rllib_ezm.models.unroll import unroll_world_model
from rllib_ezm.update.nonfinite import NonFiniteUpdatesError

LENGTH = 3
METRICS = {
    "reward_loss",
    "value_loss",
    "policy_loss",
    "temporal_consistency_loss",
    "path_consistency_loss",
    "entropy",
    "policy_std",
    "root_value",
    "value_error",
    "importance_weight",
    "target_value",
    "search_value",
    "td_value",
    "value_variance",
    "value_mixing_alpha",
    "support_overflow",
    "gradient_norm",
    "skipped_updates",
    PRIORITIES,
}


def learner_config() -> EZMConfig:
    """Two tasks of unequal dims; K=2, n=3, so that episodes of 3 steps have exact returns."""
    return tiny_config([scripted_task(5, 2, 1), scripted_task(6, 3, 2)]).training(lr=3e-3)


def build(config: EZMConfig) -> EZMTorchLearner:
    config.validate()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return config.build_learner(spaces=spaces(config.get_task_set()))


def draw(config: EZMConfig, size: int = 8, **options: Any) -> dict[str, np.ndarray]:
    return fill_replay(config, **{"length": LENGTH, "episodes": 20, **options}).sample(size)


def update(learner: EZMTorchLearner, batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """One update; the module's metrics as numbers, its priorities as an array."""
    result = learner.update(
        batch=MultiAgentBatch(
            {DEFAULT_MODULE_ID: SampleBatch(copy.deepcopy(batch))}, env_steps=len(batch["weights"])
        ),
        timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 0},
    )[DEFAULT_MODULE_ID]
    values = {name: result[name].peek() for name in result}
    values[PRIORITIES] = np.concatenate([np.atleast_1d(p) for p in values[PRIORITIES]])
    return values


def tensors(batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(column) for name, column in batch.items()}


def exact_returns(batch: dict[str, np.ndarray], discount: float, states: int) -> np.ndarray:
    """[B, states] discounted sum of all rewards to come, for segments that end in a termination."""
    values = np.zeros((len(batch["rewards"]), states))
    for row, (rewards, mask) in enumerate(zip(batch["rewards"], batch["step_mask"], strict=True)):
        for start in range(states):
            for i in range(start, len(rewards)):
                values[row, start] += discount ** (i - start) * rewards[i] * mask[i]
    return values


def model_of(learner: EZMTorchLearner) -> Any:
    return learner.module[DEFAULT_MODULE_ID].unwrapped()


@pytest.fixture
def config() -> EZMConfig:
    return learner_config()


def test_an_update_changes_every_weight_and_logs_every_metric(config: EZMConfig) -> None:
    learner = build(config)
    before = {n: p.clone() for n, p in model_of(learner).model.named_parameters()}
    batch = draw(config)
    first, second = update(learner, batch), update(learner, batch)
    unchanged = [
        name
        for name, parameter in model_of(learner).model.named_parameters()
        if torch.equal(parameter, before[name])
    ]
    assert unchanged == []
    for metrics in (first, second):
        assert set(metrics) >= METRICS
        for name in METRICS - {PRIORITIES}:
            assert np.isfinite(metrics[name]), name
        assert metrics["gradient_norm"] > 0.0
        assert metrics["skipped_updates"] == 0


def test_an_update_is_seen_by_views_of_both_networks(config: EZMConfig) -> None:
    """Fused kernels write without a trace in PyTorch's version counters, which the views read."""
    learner = build(config)
    networks = model_of(learner), learner.ezm_module.target_model
    parameters = [p for network in networks for p in network.parameters()]
    before = [p._version for p in parameters]
    update(learner, draw(config))
    uncounted = [i for i, p in enumerate(parameters) if p._version == before[i]]
    assert not uncounted


@pytest.mark.parametrize("tau", [0.25, 1.0])
def test_the_target_network_moves_by_tau(config: EZMConfig, tau: float) -> None:
    learner = build(config.training(target_tau=tau))
    module = model_of(learner)
    before = copy.deepcopy(module.target_model.state_dict())
    update(learner, draw(config))
    online, after = module.model.state_dict(), module.target_model.state_dict()
    for name in after:
        if name.startswith("normalizer.") or not after[name].is_floating_point():
            assert torch.equal(after[name], online[name]), name
        else:
            expected = (1 - tau) * before[name] + tau * online[name]
            torch.testing.assert_close(after[name], expected, rtol=1e-5, atol=1e-6)


def test_the_target_network_moves_every_target_period(config: EZMConfig) -> None:
    learner = build(config.training(target_tau=0.5, target_period=2))
    target = model_of(learner).target_model
    moved = []
    for _ in range(4):
        before = target.task_embedding.weight.clone()
        update(learner, draw(config))
        moved.append(not torch.equal(before, target.task_embedding.weight))
    assert moved == [False, True, False, True]


def test_the_optimizer_survives_a_checkpoint(config: EZMConfig) -> None:
    learner, batch = build(config), draw(config)
    update(learner, batch)
    restored = build(config)
    restored.set_state(learner.get_state())
    for twin in (learner, restored):
        torch.manual_seed(5)
        update(twin, batch)
    ours, theirs = model_of(learner).state_dict(), model_of(restored).state_dict()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], msg=name)
    assert restored.get_state()["num_updates"] == 2


def test_a_changed_learning_rate_and_weight_decay_hold_from_the_restore_on(
    config: EZMConfig,
) -> None:
    """As after an exploit of PBT: the checkpoint's optimizer has the other trial's settings."""
    learner, batch = build(config.training(lr=1e-3, weight_decay=0.0)), draw(config)
    update(learner, batch)
    changed = build(config.copy(copy_frozen=False).training(lr=5e-4, weight_decay=0.1))
    changed.set_state(learner.get_state())
    (group,) = changed.get_optimizer("default_policy").param_groups
    assert (group["lr"], group["weight_decay"]) == (5e-4, 0.1)
    assert group["fused"]
    assert len(changed.get_optimizer("default_policy").state) > 20


def test_a_schedule_of_the_learning_rate_goes_on_where_it_was(config: EZMConfig) -> None:
    config.training(lr=[[0, 1e-3], [100, 1e-4]])
    learner, batch = build(config), draw(config)
    update(learner, batch)
    stored = learner.get_optimizer("default_policy").param_groups[0]["lr"]
    restored = build(config)
    restored.set_state(learner.get_state())
    assert restored.get_optimizer("default_policy").param_groups[0]["lr"] == stored


def entropy_floor(config: EZMConfig, model: Any, batch: dict[str, np.ndarray]) -> tuple[float, ...]:
    """Smallest possible reward and value cross-entropy: the entropy of the two-hot targets."""

    def entropy(x: torch.Tensor) -> torch.Tensor:
        return -torch.xlogy(x, x).sum(dim=-1)

    steps = config.unroll_steps
    mask = torch.as_tensor(batch["step_mask"])
    rewards = torch.as_tensor(batch["rewards"][:, :steps])
    reward = (entropy(model.reward_support.encode(rewards)) * mask[:, :steps]).sum(dim=1).mean()
    returns = torch.as_tensor(exact_returns(batch, config.gamma, steps + 1))
    value = entropy(model.value_support.encode(returns)).sum(dim=1).mean()
    return float(reward), float(value)


def test_one_batch_is_overfitted(config: EZMConfig) -> None:
    config.training(value_mixing="td", path_consistency_coeff=0.0, value_loss_coeff=1.0)
    learner, batch = build(config), draw(config, size=16, high=3.0)
    assert (batch["terminal"] == 1.0).all(), "so the TD targets do not move with the network"
    first = update(learner, batch)
    for _ in range(250):
        last = update(learner, batch)
    reward_floor, value_floor = entropy_floor(config, model_of(learner).model, batch)
    assert first["reward_loss"] > reward_floor + 3.0
    assert first["value_loss"] > value_floor + 3.0
    assert reward_floor < last["reward_loss"] + 1e-4
    assert last["reward_loss"] < reward_floor + 0.3
    assert value_floor < last["value_loss"] + 1e-4
    assert last["value_loss"] < value_floor + 0.3
    assert last["temporal_consistency_loss"] < first["temporal_consistency_loss"] - 0.5
    assert last["value_error"] < 0.1 * first["value_error"]


def test_priorities_are_the_distance_of_value_and_target(config: EZMConfig) -> None:
    learner = build(config.training(value_mixing="td"))
    batch = draw(config)
    twin, columns = copy.deepcopy(model_of(learner)), tensors(batch)
    twin.model.normalizer.update(columns["obs"][:, 0], columns["task_ids"])
    with torch.no_grad():
        steps = config.unroll_steps
        unroll = unroll_world_model(
            twin.model.train(),
            columns["obs"][:, : steps + 1],
            columns["actions"][:, :steps],
            columns["task_ids"],
        )
        value = twin.model.value_support.decode(unroll.value_logits[0]).mean(dim=0)
    target = exact_returns(batch, config.gamma, 1)[:, 0]
    metrics = update(learner, batch)
    np.testing.assert_allclose(metrics[PRIORITIES], np.abs(value.numpy() - target), atol=1e-4)
    assert metrics["value_error"] == pytest.approx(metrics[PRIORITIES].mean(), rel=1e-5)


def test_targets_beyond_the_support_are_counted(config: EZMConfig) -> None:
    config.training(value_mixing="td")
    # 0, the reward of padded steps, is outside the support too, but must not count.
    config.world_model(reward_support=(0.2, 0.5), value_support=(-1000.0, 1000.0))
    batch = draw(config, size=32)
    used = batch["step_mask"][:, : config.unroll_steps]
    rewards = batch["rewards"][:, : config.unroll_steps]
    expected = (((rewards < 0.2) | (rewards > 0.5)) * used).sum()
    assert 0 < expected < used.sum() < used.size
    assert update(build(config), batch)["support_overflow"] == expected

    config.world_model(reward_support=(-1000.0, 1000.0), value_support=(-1.0, 0.5))
    states = np.arange(config.unroll_steps + 1)
    valid = states <= batch["step_mask"].sum(axis=1, keepdims=True)
    returns = exact_returns(batch, config.gamma, len(states))
    expected = ((returns > 0.5) & valid).sum()
    assert 0 < expected < valid.sum()
    assert update(build(config), batch)["support_overflow"] == expected


def test_the_gradient_is_clipped_by_its_global_norm(config: EZMConfig) -> None:
    learner = build(config.training(grad_clip=0.01))
    metrics = update(learner, draw(config))
    squares = [
        float(p.grad.square().sum()) for p in model_of(learner).parameters() if p.grad is not None
    ]
    assert metrics["gradient_norm"] > 0.01
    assert sum(squares) ** 0.5 == pytest.approx(0.01, rel=1e-3)


def test_a_non_finite_gradient_skips_the_update(config: EZMConfig) -> None:
    learner = build(config)
    update(learner, draw(config))
    before = copy.deepcopy(dict(model_of(learner).model.named_parameters()))
    batch = draw(config)
    batch["weights"][0] = np.nan
    assert update(learner, batch)["skipped_updates"] == 1
    for name, parameter in model_of(learner).model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_a_skipped_update_leaves_no_trace_in_the_running_statistics(config: EZMConfig) -> None:
    learner = build(config)
    update(learner, draw(config))
    before = copy.deepcopy(dict(model_of(learner).model.named_buffers()))
    batch = draw(config, seed=1)
    batch["obs"][0, 1] = np.nan
    assert update(learner, batch)["skipped_updates"] == 1
    for name, buffer in model_of(learner).model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    assert update(learner, draw(config))["skipped_updates"] == 0


def test_too_many_non_finite_updates_in_a_row_name_the_term_and_the_task(config: EZMConfig) -> None:
    learner = build(config.training(max_consecutive_nonfinite_updates=3))
    bad = draw(config)
    bad["rewards"][bad["task_ids"] == 1] = np.nan
    for batch in (bad, bad, draw(config), bad, bad):
        update(learner, batch)
    with pytest.raises(NonFiniteUpdatesError, match="3 updates in a row") as error:
        update(learner, bad)
    assert "'reward' of task scripted-6 (4 of 4 samples)" in str(error.value)
    assert "scripted-5" not in str(error.value)


@pytest.mark.parametrize("policy_loss", ["best_action", "distribution"])
@pytest.mark.parametrize("value_mixing", ["variance", "age", "td", "search"])
def test_every_combination_of_targets_runs(
    config: EZMConfig, value_mixing: str, policy_loss: str
) -> None:
    config.training(
        value_mixing=value_mixing,
        policy_loss=policy_loss,
        value_mixing_start=1,
        value_mixing_age=30,
    )
    learner, batch = build(config), draw(config)
    for _ in range(2):
        metrics = update(learner, batch)
        assert np.isfinite([metrics[name] for name in METRICS & set(metrics) - {PRIORITIES}]).all()
        assert ("value_mixing_alpha" in metrics) == (value_mixing == "variance")


def value_targets(config: EZMConfig, updates: int = 1) -> tuple[np.ndarray, dict[str, Any]]:
    """[K+1, B] targets of the last of some updates, and its batch."""
    learner, batch = build(config), draw(config)
    for _ in range(updates - 1):
        update(learner, batch)
    return learner.gradient_step.targets(tensors(batch)).targets.value.numpy(), batch


def test_td_targets_are_the_exact_returns(config: EZMConfig) -> None:
    targets, batch = value_targets(config.training(value_mixing="td"))
    np.testing.assert_allclose(targets.T, exact_returns(batch, config.gamma, 3), atol=1e-5)


def test_search_targets_differ_from_td_targets_except_in_terminal_states(
    config: EZMConfig,
) -> None:
    targets, batch = value_targets(config.training(value_mixing="search"))
    returns = exact_returns(batch, config.gamma, 3)
    alive = batch["step_mask"][:, :3] > 0
    assert (targets.T[alive] != returns[alive]).all()
    terminal = np.arange(3) == batch["step_mask"].sum(axis=1, keepdims=True)
    assert terminal.any()
    assert (targets.T[terminal] == 0.0).all()


def test_age_mixing_trusts_td_for_young_samples_and_before_its_start(config: EZMConfig) -> None:
    config.training(value_mixing="age", value_mixing_start=1, value_mixing_age=30)
    early, batch = value_targets(config, updates=1)
    late, _ = value_targets(config, updates=2)
    returns = exact_returns(batch, config.gamma, 3)
    np.testing.assert_allclose(early.T, returns, atol=1e-5)
    young, old = batch["age"] < 30, batch["age"] >= 30
    assert young.any()
    assert old.any()
    np.testing.assert_allclose(late.T[young], returns[young], atol=1e-5)
    assert (late.T[old, 0] != returns[old, 0]).all()


def test_stored_targets_are_used_without_reanalyze(config: EZMConfig) -> None:
    learner = build(config.training(reanalyze_ratio=0.0, value_mixing="search"))
    batch = draw(config)
    targets = learner.gradient_step.targets(tensors(batch)).targets
    alive = batch["step_mask"][:, :3] > 0
    np.testing.assert_array_equal(targets.value.T[alive], batch["search_values"][alive])
    mean, std = targets.policy_mean.transpose(0, 1), targets.policy_std.transpose(0, 1)
    np.testing.assert_array_equal(mean.numpy(), batch["policy_means"])
    np.testing.assert_array_equal(std.numpy(), batch["policy_stds"])


@pytest.mark.parametrize("site", ["rep", "dyn", "rew", "vp", "all"])
def test_every_embedding_ablation_learns(config: EZMConfig, site: str) -> None:
    sites = [other for other in ("rep", "dyn", "rew", "vp") if site not in (other, "all")]
    learner, batch = build(config.world_model(task_embedding=sites)), draw(config)
    embedding = model_of(learner).model.task_embedding.weight
    before = embedding.clone()
    losses = [update(learner, batch)["reward_loss"] for _ in range(5)]
    assert losses[-1] < losses[0]
    assert torch.equal(before, embedding) == (site == "all")


def test_without_path_consistency_its_coefficient_is_all_that_changes(config: EZMConfig) -> None:
    batch = draw(config)
    norms = []
    for coefficient in (0.0, 0.25):
        learner = build(config.copy(copy_frozen=False).training(path_consistency_coeff=coefficient))
        metrics = update(learner, batch)
        norms.append((metrics["path_consistency_loss"], metrics["gradient_norm"]))
    assert norms[0][0] == pytest.approx(norms[1][0]), "the loss is reported in both"
    assert norms[0][1] != norms[1][1], "but contributes to the gradient in one only"


def test_bfloat16_learns(config: EZMConfig) -> None:
    config.training(train_precision="bfloat16").search(inference_precision="bfloat16")
    learner, batch = build(config), draw(config)
    metrics = [update(learner, batch) for _ in range(20)]
    assert metrics[-1]["reward_loss"] < 0.8 * metrics[0]["reward_loss"]
    assert all(np.isfinite(m[name]) for m in metrics for name in METRICS - {PRIORITIES})
    assert next(model_of(learner).model.parameters()).dtype == torch.float32


def test_learning_without_a_search_is_refused(config: EZMConfig) -> None:
    config.search(num_simulations=0)
    with pytest.raises(ValueError, match="num_simulations"):
        config.build_learner(spaces=spaces(config.get_task_set()))
