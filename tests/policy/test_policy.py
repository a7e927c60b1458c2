"""A trained agent without Ray acts as `rllib evaluate` does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers.tiny import tiny_config
from ray.rllib.core.columns import Columns

from rllib_ezm import load_policy
from rllib_ezm.algorithm.checkpoint_evaluation import load_env_runner
from rllib_ezm.policy.load import save_policy
from rllib_ezm.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("ray_cluster")

PENDULUM, CARTPOLE = "gym:Pendulum-v1", "dmc:cartpole-balance"
PENDULUM_OBS = np.array([0.6, 0.8, -0.5], np.float32)


@pytest.fixture(scope="module")
def checkpoint(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    algorithm = tiny_config([PENDULUM, CARTPOLE], max_episode_steps=20).build_algo()
    algorithm.train()
    path = tmp_path_factory.mktemp("run") / "checkpoint"
    algorithm.save_to_path(path)
    algorithm.stop()
    return path


@pytest.fixture(params=["checkpoint", "exported"])
def folder(request: pytest.FixtureRequest, checkpoint: Path, tmp_path: Path) -> Path:
    if request.param == "checkpoint":
        return checkpoint
    save_policy(load_policy(checkpoint), tmp_path / "exported")
    return tmp_path / "exported"


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("num_simulations", [None, 0])
def test_its_actions_are_those_of_an_evaluation(
    folder: Path, checkpoint: Path, rows: int, num_simulations: int | None
) -> None:
    policy = load_policy(folder)
    runner = load_env_runner(checkpoint, episodes=1, num_simulations=num_simulations, seed=None)
    for task_id, name in enumerate((PENDULUM, CARTPOLE)):
        env = runner.tasks.make(task_id)
        observations = [env.reset(seed=seed)[0] for seed in range(rows)]
        batch = {
            key: torch.as_tensor(np.stack([o[key] for o in observations]))
            for key in ("obs", "task_id", "action_mask")
        }
        torch.manual_seed(3)
        padded = runner.module.forward_inference({Columns.OBS: batch})[Columns.ACTIONS]
        policy.reset(seed=3)
        own = np.stack([o["obs"][: env.own_obs_dim] for o in observations])
        planner: Any = "mean" if num_simulations == 0 else "search"
        found = policy.predict(own, name, planner=planner)
        expected = np.stack([env._own.to_bounds(action) for action in padded.numpy()])
        np.testing.assert_array_equal(found, expected)


def test_an_action_fits_the_environment(folder: Path) -> None:
    policy = load_policy(folder)
    env = gym.make("Pendulum-v1")
    observation, _ = env.reset(seed=0)
    for planner in ("search", "mean"):
        for deterministic in (True, False):
            action = policy.predict(
                observation, PENDULUM, planner=planner, deterministic=deterministic
            )
            assert env.action_space.contains(action)
    batch = policy.predict(np.stack([observation] * 4), PENDULUM)
    assert batch.shape == (4, *env.action_space.shape)
    assert isinstance(policy.value(observation, PENDULUM), float)
    assert policy.value(np.stack([observation] * 4), PENDULUM).shape == (4,)


def test_the_same_seed_gives_the_same_actions_whatever_else_draws_numbers(folder: Path) -> None:
    def actions(policy: Any) -> list[np.ndarray]:
        return [policy.predict(PENDULUM_OBS, PENDULUM, deterministic=False) for _ in range(3)]

    policy = load_policy(folder, seed=5)
    before = torch.get_rng_state()
    first = actions(policy)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    policy.reset()
    assert np.array_equal(actions(policy), first)
    assert np.array_equal(actions(load_policy(folder, seed=5)), first)
    assert not np.array_equal(actions(load_policy(folder, seed=6)), first)


def test_what_does_not_fit_is_refused_with_what_does(folder: Path) -> None:
    policy = load_policy(folder)
    assert policy.tasks == (PENDULUM, CARTPOLE)
    for arguments, message in (
        ((PENDULUM_OBS,), "none of this policy's.*gym:Pendulum-v1"),
        ((PENDULUM_OBS, "gym:Pendulum-v2"), "Did you mean.*gym:Pendulum-v1"),
        ((PENDULUM_OBS[:2], PENDULUM), r"shape \(3,\)"),
        ((PENDULUM_OBS * np.nan, PENDULUM), "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            policy.predict(*arguments)
    with pytest.raises(ValueError, match='use "search" or "mean"'):
        policy.predict(PENDULUM_OBS, PENDULUM, planner="tree")  # type: ignore[arg-type]


def test_folders_without_a_policy_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no policy"):
        load_policy(tmp_path)
    save_policy(load_policy(checkpoint), tmp_path)
    weights = tmp_path / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"weights\.safetensors cannot be read"):
        load_policy(tmp_path)
    weights.write_bytes(whole)
    description = json.loads((tmp_path / "policy.json").read_text())
    (tmp_path / "policy.json").write_text(json.dumps({**description, "format": 99}))
    with pytest.raises(UserError, match="update it"):
        load_policy(tmp_path)
    description["model"]["planner"] = "my_package.MyPlanner"
    (tmp_path / "policy.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"planner=ITS_CLASS"):
        load_policy(tmp_path)


def test_acting_needs_neither_ray_nor_an_environment_nor_a_pickle(checkpoint: Path) -> None:
    script = f"""
import sys, pickle
for name in ("load", "loads", "Unpickler"):
    setattr(pickle, name, None)
from rllib_ezm import load_policy
policy = load_policy({str(checkpoint)!r})
print(policy.predict([0.6, 0.8, -0.5], "gym:Pendulum-v1").shape)
loaded = {{name.partition(".")[0] for name in sys.modules}}
assert not loaded & {{"ray", "gymnasium", "dm_control", "mujoco"}}, loaded
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(1,)"
