"""Which settings may change at a restore: each takes effect, or is refused.

`PBT` and `--restore` restore a checkpoint into a config with other values. What could keep an old
one alive is a state that overwrites it, as the optimizer's did with its learning rate. So all
settings are changed at once, and wherever a new algorithm has another value than the old one, the
restored one must have it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import scripted_task, tiny_config

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.algorithm.setters import GROUPS
from rllib_ezm.execution.fixed_settings import FIXED_SETTINGS, check_fixed_settings, fixed_settings
from rllib_ezm.search.gumbel_planner import GumbelPlanner
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.settings import settings_of

pytestmark = pytest.mark.usefixtures("ray_cluster")


class OtherPlanner(GumbelPlanner):
    """The same search under another name."""


CHANGES: dict[str, dict[str, Any]] = {
    "training": {
        "gamma": 0.9,
        "lr": 3e-3,
        "train_batch_size_per_learner": 6,
        "grad_clip": 0.7,
        "weight_decay": 0.03,
        "unroll_steps": 3,
        "td_steps": 2,
        "replay_ratio": 0.25,
        "num_steps_sampled_before_learning_starts": 30,
        "num_random_steps": 7,
        "cross_task_probability": 0.3,
        "weight_sync_interval": 17,
        "value_mixing": "age",
        "value_mixing_age": 11,
        "value_mixing_start": 13,
        "variance_window_decay": 0.8,
        "policy_loss": "distribution",
        "latent_gradient_scale": 0.4,
        "reward_loss_coeff": 0.6,
        "value_loss_coeff": 0.35,
        "policy_loss_coeff": 0.45,
        "temporal_consistency_coeff": 1.5,
        "path_consistency_coeff": 0.15,
        "entropy_coeff": 0.02,
        "squashed_entropy": True,
        "target_tau": 0.07,
        "target_period": 2,
        "reanalyze_ratio": 1.0,
        "replayed_candidate": True,
        "train_precision": "bfloat16",
        "max_consecutive_nonfinite_updates": 19,
        "metrics_interval": 2,
        "frozen_networks": ("projector",),
    },
    "search": {
        "num_simulations": 6,
        "num_candidates": 3,
        "policy_candidates": 1,
        "refined_candidates": 1,
        "refinement_steps": 2,
        "refinement_size": 0.3,
        "wide_std_factor": 2.5,
        "root_prior": "policy",
        "use_gumbel_noise": True,
        "c_visit": 23.0,
        "c_scale": 0.21,
        "minmax_delta": 0.003,
        "planner": OtherPlanner,
        "wide_candidates_at_eval": True,
        "num_simulations_at_eval": 5,
        "value_reduction": "min",
        "value_clip_min": -0.5,
        "inference_precision": "bfloat16",
    },
    "replay": {
        "priority_alpha": 0.65,
        "priority_beta": 0.85,
        "priority_epsilon": 0.004,
        "min_importance_weight": 0.09,
        "max_replay_bytes": 10**9,
        "store_buffer_in_checkpoints": False,
    },
}

READ_WHERE_THE_ACTORS_ARE_BUILT = (
    "compile",
    "capture",
    "replay_device",
    "replay_dtype",
    "num_replay_actors",
    "num_cpus_per_replay_actor",
    *settings_of(GROUPS["asynchrony"]),
)
"""Not changed here: who runs where, and how. No state holds anything of it."""

FIXED_CHANGES: dict[str, Any] = {
    "latent_dim": 16,
    "embedding_dim": 4,
    "action_embedding_dim": 4,
    "num_blocks": 2,
    "num_value_heads": 3,
    "head_dim": 16,
    "projection_dim": 16,
    "num_bins": 21,
    "reward_support": (-3.0, 3.0),
    "value_support": (-30.0, 30.0),
    "log_std_min": -3.0,
    "log_std_max": 1.0,
    "task_embedding": ("rep",),
    "normalized_action_dim": 1,
    "capacity_per_task": 1000,
    "independent_replay": False,
}


def configure(changes: dict[str, dict[str, Any]] | None = None) -> EZMConfig:
    tasks = [scripted_task(5, action_dim=2), scripted_task(7)]
    config = tiny_config(tasks).env_runners(num_env_runners=0)
    config.training(reanalyze_ratio=0.4).reporting(min_sample_timesteps_per_iteration=100)
    for setter, values in (changes or {}).items():
        getattr(config, setter)(**values)
    return config


def build(changes: dict[str, dict[str, Any]] | None = None) -> EZM:
    return configure(changes).build_algo()


@pytest.fixture(scope="module")
def checkpoint(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    algorithm = build()
    algorithm.train()
    path = tmp_path_factory.mktemp("run") / "checkpoint"
    algorithm.save_to_path(path)
    algorithm.stop()
    return path


def values_in(thing: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Numbers and names that hang on an object of ours or an optimizer, by the way to them."""
    if thing is None or isinstance(thing, bool | int | float | str | torch.dtype | type):
        yield path, thing
    elif isinstance(thing, torch.optim.Optimizer):
        for name, value in thing.param_groups[0].items():
            if name != "params":
                yield from values_in(value, f"{path}.{name}", seen)
    elif id(thing) in seen:
        return
    elif isinstance(thing, tuple | list | dict):
        items = thing.items() if isinstance(thing, dict) else enumerate(thing)
        for name, value in items:
            yield from values_in(value, f"{path}[{name}]", seen | {id(thing)})
    elif type(thing).__module__.startswith("rllib_ezm") and not isinstance(thing, type):
        seen.add(id(thing))
        yield f"{path}.type", type(thing)
        slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        fields = {**getattr(thing, "__dict__", {})}
        fields |= {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
        for name, value in fields.items():
            yield from values_in(value, f"{path}.{name}", seen)


def parts(algorithm: EZM) -> dict[str, Any]:
    learner = algorithm.learner_group._learner
    roots = {
        "step": learner.gradient_step,
        "optimizer": learner.get_optimizer(),
        "learner_module": learner.module["default_policy"],
        "replay": algorithm.replay_buffer,
        "schedule": algorithm.schedule,
        "acting_module": algorithm.env_runner.module,
    }
    return {name: value for root in roots for name, value in values_in(roots[root], root, set())}


def test_every_setting_is_in_a_table() -> None:
    declared = {name for group in GROUPS.values() for name in settings_of(group)}
    changed = {name for values in CHANGES.values() for name in values}
    assert changed | set(FIXED_SETTINGS) | set(READ_WHERE_THE_ACTORS_ARE_BUILT) == declared
    assert set(FIXED_CHANGES) == set(FIXED_SETTINGS)
    before = configure()
    for values in (*CHANGES.values(), FIXED_CHANGES):
        for name, value in values.items():
            assert value != getattr(before, name), name


def test_a_changed_setting_holds_after_the_restore(checkpoint: Path) -> None:
    old, new, restored = build(), build(CHANGES), build(CHANGES)
    try:
        restored.restore_from_path(checkpoint)
        before, wanted, found = parts(old), parts(new), parts(restored)
        moved = {name for name in wanted if name in before and wanted[name] != before[name]}
        assert {"optimizer.lr", "optimizer.weight_decay", "schedule.replay_ratio"} <= moved
        assert len(moved) > 20
        assert {name: found[name] for name in moved} == {name: wanted[name] for name in moved}
        assert restored.training_iteration == 1
        restored.train()
    finally:
        for algorithm in (old, new, restored):
            algorithm.stop()


def changed(names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Setter -> changed values of these fixed settings."""
    return {
        setter: {name: FIXED_CHANGES[name] for name in names if name in settings_of(group)}
        for setter, group in GROUPS.items()
    }


@pytest.mark.parametrize("name", FIXED_CHANGES)
def test_a_fixed_setting_is_refused(name: str) -> None:
    stored, current = (fixed_settings(configure(c)) for c in ({}, changed((name,))))
    check_fixed_settings(stored, stored)
    with pytest.raises(UserError, match=rf"other settings \({name} [^;]* -> [^;]*\) that"):
        check_fixed_settings(stored, current)


def test_it_is_refused_before_anything_is_restored(checkpoint: Path) -> None:
    algorithm = build(changed(("capacity_per_task", "num_blocks")))
    try:
        with pytest.raises(
            UserError, match=r"\(num_blocks 1 -> 2; capacity_per_task 2000 -> 1000\)"
        ):
            algorithm.restore_from_path(checkpoint)
        assert algorithm.training_iteration == 0
    finally:
        algorithm.stop()
