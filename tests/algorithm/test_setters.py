"""The setters that derive from the groups of settings: what they take, say and do."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import scripted_task, tiny_config

from rllib_ezm import EZMConfig
from rllib_ezm.algorithm import settings_reference
from rllib_ezm.algorithm.checkpoint_summary import ChangedSetting, changed_settings
from rllib_ezm.algorithm.setters import GROUPS
from rllib_ezm.execution.settings import ExecutionSettings
from rllib_ezm.models.settings import WorldModelSettings
from rllib_ezm.update.settings import TrainingSettings
from rllib_ezm.utils.settings import defaults, describe, settings_of

ROOT = Path(__file__).parents[2]
SETTERS = sorted(GROUPS)

SNIPPET = """
from rllib_ezm import EZMConfig
config = EZMConfig().training(replay_ratio=0.5, lr=[[0, 1e-4], [1000, 1e-5]], num_epochs=1)
config.search(c_visit=20, root_prior="policy").replay(max_replay_bytes=None)
config.world_model(reward_support=(0.0, 1.0), task_embedding=["rep"]).asynchrony(True)
config.env_runners(num_env_runners=1).training(unroll_steps=3)
size: int = config.latent_dim
config.training(replay_ration=0.5)
config.training(unroll_steps="5")
config.search(root_prior="gaussian")
config.replay(independent_replay=None)
config.world_model(512)
config.asynchrony(True, 3)
config.latent_dims
"""
ERRORS = {
    8: 'Unexpected keyword argument "replay_ration"',
    9: 'incompatible type "str"; expected "int"',
    10: "expected \"Literal['uniform', 'policy']\"",
    11: 'expected "bool"',
    12: "Too many positional arguments",
    13: "Too many positional arguments",
    14: 'no attribute "latent_dims"',
}


@pytest.mark.slow
def test_mypy_checks_the_names_and_types_of_settings(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    # As a user's mypy, with the types of Ray: the package's own configuration leaves them out.
    options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
    options += ["--hide-error-context", "--no-pretty"]
    command = [sys.executable, "-m", "mypy", *options, str(snippet)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = re.findall(r"snippet\.py:(\d+): error: (.*)", result.stdout)
    assert {int(line) for line, _ in found} == set(ERRORS), result.stdout + result.stderr
    for line, message in found:
        assert ERRORS[int(line)] in message


@pytest.mark.parametrize("setter", SETTERS)
def test_help_lists_every_setting_with_its_meaning_default_and_range(setter: str) -> None:
    method = getattr(EZMConfig, setter)
    text = " ".join(inspect.getdoc(method).split())
    parameters = inspect.signature(method).parameters
    assert next(iter(parameters)) == "self"
    for row in describe(GROUPS[setter]):
        assert f"{row.name}: {row.sentence} [{row.type}; default {row.default}" in text
        assert row.range in text
        assert repr(parameters[row.name].default) == row.default


@pytest.mark.parametrize("setter", SETTERS)
def test_every_setting_is_an_attribute_with_its_default(setter: str) -> None:
    config, group = EZMConfig(), GROUPS[setter]
    assert {name: getattr(config, name) for name in settings_of(group)} == defaults(group)
    assert config.group(group) == group()


def test_no_setting_is_in_two_groups() -> None:
    names = [name for group in GROUPS.values() for name in settings_of(group)]
    assert len(names) == len(set(names))


def test_a_setter_keeps_what_it_is_not_given() -> None:
    config = EZMConfig().training(td_steps=3).training(unroll_steps=4)
    assert (config.td_steps, config.unroll_steps) == (3, 4)


def test_a_group_has_the_configs_present_values() -> None:
    config = tiny_config([scripted_task(5)]).training(lr=[[0, 1e-4], [9, 1e-5]], gamma=0.9)
    training = config.group(TrainingSettings)
    assert (training.gamma, training.train_batch_size_per_learner) == (0.9, 8)
    assert training.lr == ([0, 1e-4], [9, 1e-5])
    with pytest.raises(ValueError, match="latent_dim=0"):
        config.world_model(latent_dim=0).group(WorldModelSettings)


def test_rllibs_training_settings_are_passed_on() -> None:
    config = EZMConfig().training(
        train_batch_size_per_learner=7, grad_clip_by="norm", minibatch_size=3, gamma=0.5
    )
    assert config.train_batch_size_per_learner == 7
    assert (config.grad_clip_by, config.minibatch_size, config.gamma) == ("norm", 3, 0.5)


def test_rllibs_training_settings_have_their_types() -> None:
    """Every argument of RLlib's that is not deprecated is an argument of ours."""
    theirs = inspect.signature(EZMConfig.__mro__[1].training).parameters
    deprecated = {name for name in theirs if name.startswith(("num_agg", "max_req", "num_sgd"))}
    moved = {name for name in theirs if "learner_" in name} - {"train_batch_size_per_learner"}
    ours = inspect.signature(EZMConfig.training).parameters
    assert theirs.keys() - ours.keys() == deprecated | moved


def test_asynchronous_is_the_only_argument_by_position() -> None:
    assert EZMConfig().asynchrony(True).asynchronous is True
    assert EZMConfig().asynchrony(asynchronous=True).asynchronous is True
    assert EZMConfig().asynchrony(max_weight_age=9).asynchronous is False
    with pytest.raises(TypeError, match=r"asynchrony\(\) takes 1 arguments by position"):
        EZMConfig().asynchrony(True, 4)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"'asynchronous'.*twice"):
        EZMConfig().asynchrony(True, asynchronous=True)  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"search\(\) takes 0 arguments by position"):
        EZMConfig().search(4)  # type: ignore[call-arg]


def write_attribute(config: EZMConfig) -> None:
    config.weights_on_the_wire = "bfloat16"


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.asynchrony(weights_on_the_wire="bfloat16"),
        lambda config: config.update_from_dict({"weights_on_the_wire": "bfloat16"}),
        write_attribute,
    ],
    ids=["setter", "dict", "attribute"],
)
def test_the_old_name_of_a_setting_works_and_warns(change: Callable[[Any], Any]) -> None:
    config = EZMConfig()
    with pytest.warns(DeprecationWarning, match="is now weight_transfer_dtype") as warned:
        change(config)
    assert config.weight_transfer_dtype == "bfloat16"
    assert "weights_on_the_wire" not in config.to_dict()
    assert len(warned) == 1
    with pytest.warns(DeprecationWarning, match="is now weight_transfer_dtype") as warned:
        assert config.weights_on_the_wire == "bfloat16"
    assert warned[0].filename == __file__


@pytest.mark.parametrize(
    "change",
    [lambda config: config.asynchrony(weights_on_the_wire="bfloat16"), write_attribute],
    ids=["setter", "attribute"],
)
def test_the_warning_points_at_the_old_name(change: Callable[[Any], Any]) -> None:
    with pytest.warns(DeprecationWarning, match="weight_transfer_dtype") as warned:
        change(EZMConfig())
    assert warned[0].filename == __file__


def write_value(config: EZMConfig) -> None:
    config.value_reduction = "min2"  # type: ignore[assignment]


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.search(value_reduction="min2"),
        lambda config: config.update_from_dict({"value_reduction": "min2"}),
        write_value,
    ],
    ids=["setter", "dict", "attribute"],
)
def test_the_old_name_of_a_value_works_and_warns(change: Callable[[Any], Any]) -> None:
    config = EZMConfig().search(value_reduction="mean")
    with pytest.warns(DeprecationWarning, match="'min2' is now 'random_pair'") as warned:
        change(config)
    assert config.value_reduction == "random_pair"
    assert len(warned) == 1


def test_a_stored_config_may_have_the_old_name_of_a_value() -> None:
    config = tiny_config([scripted_task(5)])
    vars(config)["value_reduction"] = "min2"  # as unpickling does
    config.validate()
    assert config.model_config["value_reduction"] == "random_pair"


def test_every_setting_of_a_search_reaches_it() -> None:
    config = tiny_config([scripted_task(5)]).search(c_visit=7.0, c_scale=0.3)
    model = config.model_config
    for search in (model["search"], model["evaluation_search"]):
        assert (search["c_visit"], search["c_scale"]) == (7.0, 0.3)
    assert "wide_std_factor" in model["search"]


def test_changed_settings_say_which_setter_changes_them() -> None:
    config = EZMConfig().training(gamma=0.9, train_batch_size_per_learner=4).debugging(seed=3)
    config.asynchrony(True)
    assert changed_settings(config) == (
        ChangedSetting("training", "gamma", 0.9, 0.99),
        ChangedSetting("training", "train_batch_size_per_learner", 4, 512),
        ChangedSetting("asynchrony", "asynchronous", True, False),
        ChangedSetting("RLlib", "seed", 3, None),
    )


def test_the_groups_are_frozen_and_taken_by_name() -> None:
    for group in GROUPS.values():
        fields = dataclasses.fields(group)
        by_position = [field.name for field in fields if not field.kw_only]
        assert by_position == (["asynchronous"] if group is ExecutionSettings else [])
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(group(), fields[0].name, 1)


def test_the_reference_page_is_up_to_date() -> None:
    page = (ROOT / "docs/reference/configuration.md").read_text()
    assert page == settings_reference.page(), (
        "write it anew: python -m rllib_ezm.algorithm.settings_reference "
        "> docs/reference/configuration.md"
    )
