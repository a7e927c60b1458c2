"""A new run that begins with what another one has learned, and with tasks it has not seen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import scripted_task, tiny_config
from ray import tune

from rllib_ezm import EZM, EZMConfig, load_policy
from rllib_ezm.algorithm.checkpoint_summary import changed_settings
from rllib_ezm.cli.smoke import scale_down
from rllib_ezm.execution.checkpointing import REPLAY
from rllib_ezm.models.settings import SUB_NETWORKS
from rllib_ezm.policy.load import save_policy

pytestmark = pytest.mark.usefixtures("ray_cluster")

PENDULUM, CAR, REACHER = "gym:Pendulum-v1", "gym:MountainCarContinuous-v0", "dmc:reacher-easy"


def configure(tasks: list[Any]) -> EZMConfig:
    config = tiny_config(tasks).env_runners(num_env_runners=0)
    return config.reporting(min_sample_timesteps_per_iteration=120)


@contextmanager
def built(config: EZMConfig) -> Iterator[EZM]:
    algorithm = config.build_algo()
    try:
        yield algorithm
    finally:
        algorithm.stop()


@pytest.fixture(scope="module")
def trained(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after some updates with two tasks."""
    path = tmp_path_factory.mktemp("trained") / "checkpoint"
    with built(configure([PENDULUM, CAR])) as algorithm:
        algorithm.train()
        algorithm.train()
        assert algorithm.num_updates > 10
        algorithm.save_to_path(path)
    return path


@pytest.fixture
def source(trained: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "source"))


def module_of(algorithm: EZM) -> Any:
    return algorithm.learner_group._learner.ezm_module


def weights_of(algorithm: EZM) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in module_of(algorithm).state_dict().items()}


def test_a_third_task_is_learned_from_there_on(source: Path, tmp_path: Path) -> None:
    config = configure([CAR, REACHER, PENDULUM]).warm_start(source)
    with built(config) as algorithm:
        assert (algorithm.num_updates, algorithm.num_env_steps) == (0, 0)
        kept = [algorithm.replay_buffer.num_transitions(task) for task in range(3)]
        assert kept[1] == 0
        assert min(kept[0], kept[2]) > 40
        algorithm.save_to_path(tmp_path / "start")
        algorithm.train()
        assert algorithm.num_updates > 0
        assert algorithm.replay_buffer.num_transitions(1) > 0
        algorithm.save_to_path(tmp_path / "grown")
        weights, updates = weights_of(algorithm), algorithm.num_updates
        stored = len(algorithm.replay_buffer)
    before, after = load_policy(source), load_policy(tmp_path / "start")
    assert after.tasks == (CAR, REACHER, PENDULUM)
    rng = np.random.default_rng(0)
    for task, dim in ((PENDULUM, 3), (CAR, 2)):
        rows = rng.normal(size=(16, dim)).astype(np.float32)
        mean = before.predict(rows, task, planner="mean")
        np.testing.assert_allclose(after.predict(rows, task, planner="mean"), mean, atol=1e-5)
        assert np.ptp(mean) > 0

    shutil.rmtree(source)  # the grown run has checkpoints of its own
    resumed = EZM.from_checkpoint(tmp_path / "grown")
    try:
        assert resumed.num_updates == updates
        assert len(resumed.replay_buffer) == stored
        for name, tensor in weights_of(resumed).items():
            assert torch.equal(tensor, weights[name]), name
        resumed.train()
        assert resumed.num_updates > updates
    finally:
        resumed.stop()


def test_both_networks_and_all_statistics_are_those_of_the_checkpoint(trained: Path) -> None:
    with built(configure([PENDULUM, CAR])) as fresh:
        fresh.restore_from_path(trained)
        wanted = weights_of(fresh)
    with built(configure([CAR, PENDULUM]).warm_start(trained, replay="empty")) as algorithm:
        found = weights_of(algorithm)
        assert len(algorithm.replay_buffer) == 0
        optimizer = algorithm.learner_group._learner.get_optimizer()
        assert not optimizer.state, "the moments begin anew"
    per_task = ("task_embedding.weight", "observation_mask", "window.low", "window.high")
    for name, tensor in wanted.items():
        swapped = tensor.flip(0) if name.endswith(per_task) else tensor
        assert torch.equal(found[name], swapped), name
    online, target = (
        found[f"{prefix}.task_embedding.weight"] for prefix in ("model", "target_model")
    )
    assert not torch.equal(online, target)


def test_frozen_networks_do_not_learn(source: Path, tmp_path: Path) -> None:
    config = configure([PENDULUM, CAR, REACHER])
    config.warm_start(source, new_task_embedding=CAR, freeze=("representation", "task_embedding"))

    def learn(algorithm: EZM) -> None:
        before = {name: x.clone() for name, x in module_of(algorithm).model.named_parameters()}
        algorithm.train()
        for name, parameter in module_of(algorithm).model.named_parameters():
            is_frozen = name.startswith(("representation", "task_embedding"))
            assert torch.equal(parameter, before[name]) == is_frozen, name

    with built(config) as algorithm:
        embeddings = module_of(algorithm).model.task_embedding.normalized()
        assert torch.equal(embeddings[2], embeddings[1])
        learn(algorithm)
        algorithm.save_to_path(tmp_path / "frozen")
    resumed = EZM.from_checkpoint(tmp_path / "frozen")
    try:
        learn(resumed)
    finally:
        resumed.stop()


def test_what_was_frozen_learns_after_a_restore_without_it(trained: Path, tmp_path: Path) -> None:
    frozen = configure([PENDULUM, CAR]).training(frozen_networks=("reward",))
    with built(frozen) as algorithm:
        algorithm.restore_from_path(trained)
        algorithm.train()
        algorithm.save_to_path(tmp_path / "frozen")
    with built(configure([PENDULUM, CAR])) as algorithm:
        algorithm.restore_from_path(tmp_path / "frozen")
        before = module_of(algorithm).model.reward_model.head.output.weight.clone()
        algorithm.train()
        assert not torch.equal(module_of(algorithm).model.reward_model.head.output.weight, before)


def test_a_trial_of_tune_begins_there_and_goes_on_without_it(source: Path, tmp_path: Path) -> None:
    config = configure([PENDULUM, CAR, REACHER]).warm_start(source)
    run = tune.RunConfig(
        name="grown",
        storage_path=str(tmp_path / "results"),
        stop={"training_iteration": 1},
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
        verbose=0,
    )
    (result,) = tune.Tuner("EZM", param_space=config, run_config=run).fit()
    assert result.error is None
    policy = load_policy(result.checkpoint.path)
    assert policy.tasks == (PENDULUM, CAR, REACHER)
    assert policy.model.dynamics_model.norm.weight.shape[0] == 32 + 8 + 1
    shutil.rmtree(source)
    config.training(lr=1e-5)  # another trial, which takes the checkpoint over

    class GoesOn(EZM):
        def setup(self, config: Any) -> None:
            super().setup(config)
            self.restore_from_path(result.checkpoint.path)

    run.name, run.stop = "goes on", {"training_iteration": 2}
    (second,) = tune.Tuner(GoesOn, param_space=config, run_config=run).fit()
    assert second.error is None
    assert second.metrics["training_iteration"] == 2


def test_a_warm_start_from_a_grown_agent(trained: Path, tmp_path: Path) -> None:
    with built(configure([PENDULUM, CAR, REACHER]).warm_start(trained)) as algorithm:
        algorithm.save_to_path(tmp_path / "first")
    wide = scripted_task(5, 8, 4)
    with built(configure([CAR, REACHER, wide]).warm_start(tmp_path / "first")) as algorithm:
        assert algorithm.config.normalized_action_dim == 1
        algorithm.train()
        algorithm.save_to_path(tmp_path / "second")
    assert load_policy(tmp_path / "second").tasks == (CAR, REACHER, "scripted-5")


def test_a_run_that_did_not_get_wider_goes_on_without_the_setting(
    trained: Path, tmp_path: Path
) -> None:
    with built(configure([PENDULUM, CAR]).warm_start(trained, replay="empty")) as algorithm:
        algorithm.save_to_path(tmp_path / "grown")
    with built(configure([PENDULUM, CAR])) as algorithm:
        assert algorithm.config.normalized_action_dim is None
        algorithm.restore_from_path(tmp_path / "grown")
        algorithm.train()


SMALLER = [scripted_task(5, 2, 1)]
WRONG: dict[str, tuple[Any, str]] = {
    "no checkpoint": (lambda c, _: c.warm_start(replay="empty"), r"No checkpoint: call \.warm_st"),
    "a missing one": (
        lambda c, s: c.warm_start(s / "missing"),
        "missing is no checkpoint of EZ-M: it has no tasks.json",
    ),
    "another size": (
        lambda c, s: c.world_model(latent_dim=16, num_bins=21).warm_start(s),
        r"latent_dim 32 -> 16; num_bins 51 -> 21\): set \.world_model\(latent_dim=32, num_",
    ),
    "an unknown rule": (
        lambda c, s: c.warm_start(s, new_task_embedding="gym:Pendulum"),
        "Did you mean gym:Pendulum-v1",
    ),
    "an unknown choice": (
        lambda c, s: c.warm_start(s, replay="keeps"),
        r"replay='keeps' must be one of \('keep', 'empty'\)",
    ),
    "an unknown network": (
        lambda c, s: c.warm_start(s, freeze=("represent",)),
        "frozen_networks=.* any of .*'representation', 'dynamics', 'reward'",
    ),
    "all networks": (
        lambda c, s: c.warm_start(s, freeze=SUB_NETWORKS),
        "leaves nothing to learn",
    ),
    "another capacity": (
        lambda c, s: c.replay(capacity_per_task=1000).warm_start(s),
        r"set \.replay\(capacity_per_task=2000\) or \.warm_start\(\.\.\., replay=\"empty\"\)",
    ),
    "one ring for all": (
        lambda c, s: c.replay(independent_replay=False).warm_start(s),
        "all tasks share one ring: set .warm_start",
    ),
    "another action repeat": (
        lambda c, s: c.tasks([PENDULUM], action_repeat=2).warm_start(s),
        "action_repeat 1 -> 2.*or a name of their own",
    ),
    "narrower tasks": (
        lambda c, s: c.tasks(SMALLER).warm_start(s),
        r"padded to 2 observation and 1 action dims instead of 3 and 1\. Keep a task",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_before_the_run(case: str, trained: Path) -> None:
    change, says = WRONG[case]
    config = configure([PENDULUM, CAR])
    with pytest.raises(ValueError, match=f"(?s){says}"):
        change(config, trained).validate()


def test_a_checkpoint_without_a_buffer_cannot_give_one(source: Path) -> None:
    shutil.rmtree(source / REPLAY)
    with pytest.raises(ValueError, match=r"holds no replay buffer: set \.warm_start\(\.\.\., rep"):
        configure([PENDULUM]).warm_start(source).validate()


def test_an_exported_policy_is_no_checkpoint(trained: Path, tmp_path: Path) -> None:
    save_policy(load_policy(trained), tmp_path / "policy")
    with pytest.raises(ValueError, match=r"rllib-ezm export. writes lacks the parts that learn"):
        configure([PENDULUM]).warm_start(tmp_path / "policy").validate()


def test_a_damaged_checkpoint_is_refused(source: Path) -> None:
    weights = source / "learner_group/learner/rl_module/default_policy/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(Exception, match=r"weights\.safetensors has"):
        configure([PENDULUM, CAR]).warm_start(source).build_algo()


def test_the_setter_keeps_what_it_is_not_given(trained: Path) -> None:
    config = configure([PENDULUM, CAR]).warm_start(trained, replay="empty")
    config.warm_start(new_task_embedding="nearest").training(frozen_networks=["reward"])
    assert config.warm_start_options == {
        "checkpoint": str(trained),
        "new_task_embedding": "nearest",
        "replay": "empty",
    }
    listed = {(s.group, s.name): s.value for s in changed_settings(config)}
    assert listed["warm_start", "checkpoint"] == str(trained)
    assert listed["warm_start", "replay"] == "empty"
    copy = EZMConfig().update_from_dict(config.to_dict())
    assert copy.warm_start_options == config.warm_start_options
    assert copy.normalized_action_dim == 1
    config.warm_start(None).validate()
    assert (config.warm_start_options, config.normalized_action_dim) == (None, None)


def test_a_grid_search_over_checkpoints_passes_through(trained: Path) -> None:
    grid = tune.grid_search([str(trained), "another"])
    config = EZMConfig().warm_start(grid)
    assert config.to_dict()["warm_start_options"]["checkpoint"] == grid


def test_a_smoke_run_begins_with_nothing(trained: Path) -> None:
    small = scale_down(configure([PENDULUM, CAR]).warm_start(trained))
    assert small.warm_start_options is None
