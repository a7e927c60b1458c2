from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import scripted_task, tiny_config
from helpers.train_process import TINY
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_ezm import EZMConfig
from rllib_ezm.cli.experiment_file import ExperimentFile
from rllib_ezm.cli.main import main
from rllib_ezm.cli.overrides import OF_ALL_TASKS, notes, override
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.sweep import configs_of, sweep


@pytest.fixture
def config() -> Any:
    return tiny_config([scripted_task(5), scripted_task(10)], envs_per_task=3)


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("training.replay_ratio=1", "replay_ratio", 1),
        ("training.lr=1e-3", "lr", 1e-3),
        ("training.lr=[[0, 1e-3], [1000, 1e-4]]", "lr", [[0, 1e-3], [1000, 1e-4]]),
        ("training.policy_loss=distribution", "policy_loss", "distribution"),
        ('training.policy_loss="distribution"', "policy_loss", "distribution"),
        ("training.gamma = 0.9", "gamma", 0.9),
        ("training.grad_clip=2.0", "grad_clip", 2.0),
        ("world_model.reward_support=(-3, 3)", "reward_support", (-3, 3)),
        ("search.use_gumbel_noise=True", "use_gumbel_noise", True),
        ("replay.max_replay_bytes=None", "max_replay_bytes", None),
        ("evaluation.evaluation_interval=7", "evaluation_interval", 7),
        ("env_runners.num_env_runners=2", "num_env_runners", 2),
        ("debugging.seed=11", "seed", 11),
    ],
)
def test_a_setting_is_what_python_would_make_it(
    config: Any, text: str, attribute: str, value: Any
) -> None:
    before = getattr(config, attribute)
    changed = override(config, [text])
    assert getattr(changed, attribute) == value != before
    assert getattr(config, attribute) == before
    changed.validate()


def test_the_last_one_counts(config: Any) -> None:
    changed = override(config, ["training.replay_ratio=1", "training.replay_ratio=2"])
    assert changed.replay_ratio == 2


def test_tasks_are_replaced_and_the_rest_of_their_settings_stays(config: Any) -> None:
    texts = ["tasks=['gym:Pendulum-v1', {'name': 'dmc:walker-run', 'action_repeat': 2}]"]
    options = override(config, [*texts, "tasks.termination=ignore"]).env_config
    assert [task.name for task in options["tasks"]] == ["gym:Pendulum-v1", "dmc:walker-run"]
    assert options["envs_per_task"] == 3
    assert options["termination"] == "ignore"
    options = override(config, [*texts, "tasks.action_repeat=4"]).env_config
    assert [task.action_repeat for task in options["tasks"]] == [4, 4]
    assert override(config, ["tasks=gym:Pendulum-v1"]).get_task_set().num_tasks == 1


def test_an_action_repeat_that_is_lost_with_the_tasks_is_said(config: Any) -> None:
    repeated = tiny_config(["gym:Pendulum-v1"], action_repeat=4)
    (note,) = notes(repeated, override(repeated, ["tasks=['dmc:walker-run']"]))
    assert "--set tasks.action_repeat=4" in note
    texts = ["tasks=['dmc:walker-run']", "tasks.action_repeat=4"]
    assert notes(repeated, override(repeated, texts)) == []
    assert notes(config, override(config, ["training.lr=1e-3"])) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.replay_ratio", "must be GROUP.NAME=VALUE"),
        ("replay_ratio=1", "did you mean training.replay_ratio?"),
        ("training.replay_ratoi=1", "did you mean training.replay_ratio?"),
        ("trainig.replay_ratio=1", "did you mean training.replay_ratio?"),
        ("replay.replay_ratio=1", "did you mean training.replay_ratio?"),
        ("nonsense.replay_ratio=1", "did you mean training.replay_ratio?"),
        ("nonsense.zzzz=1", "its groups: "),
        ("world_model.latent_dims=1", "did you mean world_model.latent_dim?"),
        ("training.lr=1e-3x", "not a Python literal"),
        ("training.lr=__import__('os')", "not a Python literal"),
        ("search.use_gumbel_noise=true", "write True"),
        ("replay.max_replay_bytes=null", "write None"),
        ("tasks=['dmc:walker-rum']", "Did you mean dmc:walker-run"),
        ("tasks.action_repeats=2", "Did you mean action_repeat"),
        ("build_algo.env=1", "no group 'build_algo'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(config: Any, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        override(config, [text])
    assert str(error.value).startswith(f"--set {text}: ")
    assert message in str(error.value)


def test_other_algorithms_and_every_variant_of_a_sweep(config: Any) -> None:
    ppo = override(PPOConfig(), ["training.use_critic=False", "training.lr=1e-3"])
    assert (ppo.use_critic, ppo.lr) == (False, 1e-3)
    with pytest.raises(UserError, match="no group 'tasks'"):
        override(PPOConfig(), ["tasks.action_repeat=1"])
    other = config.copy(copy_frozen=False).training(replay_ratio=0.1)
    swept = ExperimentFile(Path("x.py"), sweep({"a": config, "b": other}), None)
    changed = configs_of(swept.overridden(["training.lr=1e-3"]).config)
    assert {name: (c.lr, c.replay_ratio) for name, c in changed.items()} == {
        "a": (1e-3, config.replay_ratio),
        "b": (1e-3, 0.1),
    }


def test_values_are_validated_as_in_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.py"
    file.write_text(TINY.format(iteration=20))
    for command in (["train", "file"], ["plan"]):
        assert main([*command, str(file), "--set", "training.replay_ratio=-1"]) == 2
        assert "replay_ratio=-1 must be a finite number > 0" in capsys.readouterr().err
    assert main(["doctor", str(file), "--set", "training.replay_ratio=-1"]) == 1
    assert "replay_ratio=-1 must be" in capsys.readouterr().out
    assert main(["doctor", "--set", "training.replay_ratio=1"]) == 2


def test_a_resumed_run_keeps_what_was_set(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.py"
    file.write_text(TINY.format(iteration=20))
    run = ["train", "file", str(file), "--stop", '{"training_iteration": 1}']
    settings = ["--set", "training.lr=1e-3", "--set", "tasks.max_episode_steps=10"]
    assert main([*run, *settings, "--local-dir", str(tmp_path), "-n", "set"]) == 0
    assert "Set:         training.lr=1e-3" in capsys.readouterr().out
    resume = [*run[:3], "--resume", str(tmp_path / "set"), "--stop", '{"training_iteration": 2}']
    assert main([*resume, "--set", "training.lr=1e-2"]) == 2
    assert "--set cannot be combined with --resume" in capsys.readouterr().err
    assert main(resume) == 0
    (results,) = (tmp_path / "set").glob("*/result.json")
    lives = [json.loads(line)["config"] for line in results.read_text().splitlines()]
    assert [life["lr"] for life in lives] == [1e-3, 1e-3]
    assert all("max_episode_steps=10" in str(life["env_config"]) for life in lives)


def test_every_argument_of_tasks_beside_the_tasks_can_be_set(config: Any) -> None:
    parameters = inspect.signature(EZMConfig.tasks).parameters.values()
    named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert sorted(named) == sorted(OF_ALL_TASKS)
    texts = ["tasks.num_env_processes=2", "tasks.env_step_timeout_s=None"]
    options = override(config, texts).env_config
    assert options["num_env_processes"] == 2
    assert options["env_step_timeout_s"] is None
