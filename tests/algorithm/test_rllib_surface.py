"""Every setter and every hook of RLlib: EZ-M reads it, or refuses it and says what there is."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from helpers.tiny import scripted_task, tiny_config
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.utils.serialization import TuneFunctionDecoder, TuneFunctionEncoder

from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.algorithm.rllib_settings import (
    CHECKED_BY_RLLIB,
    CHECKED_IN_CONTEXT,
    OLD_HOOKS,
    SETTERS,
    UNREAD,
    RLlibSettings,
    attribute,
    is_deprecated,
    unread,
)
from rllib_ezm.algorithm.setters import GROUPS
from rllib_ezm.algorithm.setting_names import UnknownSettingError, arguments
from rllib_ezm.utils.settings import defaults, settings_of

OTHER_METHODS = {"copy", "get_config_for_module", "update_from_dict"}
"""Methods of `AlgorithmConfig` that return a config and set nothing by name."""

ARGUMENTS = [
    (setter, name) for setter in SETTERS for name in arguments(getattr(AlgorithmConfig, setter))
]
READ = settings_of(RLlibSettings)
OWN = {name for group in GROUPS.values() for name in settings_of(group)}
HOOKS = {name for name, _ in inspect.getmembers(RLlibCallback, inspect.isfunction) if "on_" in name}


def small_config() -> EZMConfig:
    return tiny_config([scripted_task(5)])


def test_every_setter_of_rllib_is_known() -> None:
    found = {
        name
        for name, method in inspect.getmembers(AlgorithmConfig, inspect.isfunction)
        if "Self" in str(inspect.signature(method).return_annotation)
    }
    assert found - OTHER_METHODS == set(SETTERS)


@pytest.mark.parametrize(("setter", "name"), ARGUMENTS)
def test_every_argument_of_a_setter_is_in_one_table(setter: str, name: str) -> None:
    hook = name.startswith("on_") and name not in UNREAD
    tables = (READ, OWN, CHECKED_BY_RLLIB, CHECKED_IN_CONTEXT, UNREAD)
    assert hook + is_deprecated(name) + sum(name in table for table in tables) == 1


def test_the_tables_list_nothing_that_rllib_does_not_have() -> None:
    theirs = {name for _, name in ARGUMENTS} | {"policies"}
    assert theirs >= {*READ, *CHECKED_BY_RLLIB, *CHECKED_IN_CONTEXT, *UNREAD}


@pytest.mark.parametrize("name", sorted({name for _, name in ARGUMENTS if is_deprecated(name)}))
def test_what_is_deprecated_is_refused(name: str) -> None:
    setter = next(setter for setter, known in ARGUMENTS if known == name)
    with pytest.raises(TypeError, match=rf"{setter}\(\) got an unexpected .*'{name}'"):
        getattr(EZMConfig(), setter)(**{name: 3})


@pytest.mark.parametrize("name", sorted(UNREAD))
def test_a_setting_that_is_not_read_is_refused(name: str) -> None:
    config = small_config()
    default = getattr(config, attribute(name))
    setattr(config, attribute(name), not default if isinstance(default, bool) else "another")
    with pytest.raises(ValueError, match=f"does not read {name}.*: "):
        config.validate()


@pytest.mark.parametrize("name", sorted(READ))
def test_a_setting_that_is_read_has_a_type(name: str) -> None:
    config = small_config()
    assert getattr(EZMConfig(), name) == READ[name].default
    setattr(config, name, object())
    with pytest.raises(ValueError, match=f"{name}=<object.* must be "):
        config.validate()


@pytest.mark.parametrize(
    ("setter", "name", "value", "says"),
    [
        ("learners", "num_learners", -1, "integer >= 0"),
        ("learners", "num_gpus_per_learner", -0.5, ">= 0"),
        ("env_runners", "num_env_runners", 1.5, "integer >= 0"),
        ("env_runners", "num_env_runners", "2", "written without quotes"),
        ("env_runners", "sample_timeout_s", -1, ">= 0, or None"),
        ("evaluation", "evaluation_interval", 0, "integer >= 1, or None"),
        ("reporting", "min_sample_timesteps_per_iteration", 1e3, "integer >= 0"),
        ("debugging", "seed", -3, "in \\[0, 4294967295\\]"),
        ("debugging", "log_level", "LOUD", "DEBUG.*ERROR"),
        ("resources", "placement_strategy", "pack", "PACK.*STRICT_SPREAD"),
    ],
)
def test_a_wrong_value_of_rllibs_is_refused(setter: str, name: str, value: Any, says: str) -> None:
    config = small_config()
    getattr(config, setter)(**{name: value})
    with pytest.raises(ValueError, match=f"{name}=.*{says}"):
        config.validate()


@pytest.mark.parametrize(
    ("setter", "given", "says"),
    [
        ("environment", {"env": "CartPole-v1"}, r"\.tasks\(\["),
        ("environment", {"env_config": {"terminaton": "ignore"}}, "Did you mean termination"),
        ("training", {"train_batch_size": 256}, "train_batch_size_per_learner"),
        ("training", {"model": {"fcnet_hiddens": [64]}}, r"\.world_model\(latent_dim"),
        ("training", {"optimizer": {"momentum": 0.9}}, "weight_decay"),
        ("env_runners", {"observation_filter": "MeanStdFilter"}, "env_to_module_connector"),
        ("rl_module", {"model_config": {"world_model": {"latent_dim": 64}}}, r"\.world_model\("),
        ("rl_module", {"model_config": {"fcnet_hiddens": [64]}}, r"\.world_model\("),
        ("framework", {"framework": "tf2"}, "EZM is in PyTorch"),
        ("env_runners", {"env_runner_cls": SingleAgentEnvRunner}, "must be MultiTaskEnvRunner"),
        ("learners", {"learner_class": PPOTorchLearner}, "must be EZMTorchLearner"),
        ("resources", {"num_gpus": 1}, r"\.learners\(num_gpus_per_learner=1\)"),
    ],
)
def test_what_is_not_read_is_refused_with_the_right_name(
    setter: str, given: dict[str, Any], says: str
) -> None:
    config = small_config()
    getattr(config, setter)(**given)
    with pytest.raises(ValueError, match=says):
        config.validate()
    rebuilt = EZMConfig().update_from_dict(config.to_dict())
    with pytest.raises(ValueError, match=says):
        rebuilt.validate()


def test_borderline_values_are_accepted() -> None:
    config = small_config().learners(num_cpus_per_learner="auto", custom_resources_per_learner={})
    config.env_runners(sample_timeout_s=None, num_gpus_per_env_runner=0.25)
    config.env_runners(merge_env_runner_states=True, num_cpus_per_env_runner=0.5)
    config.evaluation(evaluation_interval=None, evaluation_num_env_runners=2)
    config.debugging(seed=0, log_level=None).reporting(min_time_s_per_iteration=1)
    config.validate()
    config.validate()
    assert unread(config, {"env": config.env}) is None


def write(config: EZMConfig, name: str, value: Any) -> None:
    setattr(config, name, value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lrr", "no setting 'lrr'. Did you mean lr"),
        ("value_los_coeff", "Did you mean value_loss_coeff"),
        ("num_simulation", "Did you mean num_simulations"),
        ("num_env_runner", "Did you mean num_env_runners"),
        ("env_per_task", "Did you mean envs_per_task"),
        ("envs_per_task", r"It is set by \.tasks\(envs_per_task=\.\.\.\)"),
        ("training_intensity", r"Here it is \.training\(replay_ratio=\.\.\.\)"),
        ("xyzzy", "no setting 'xyzzy'.$"),
    ],
)
def test_an_unknown_name_is_refused(name: str, says: str) -> None:
    for change in (write, lambda config, name, value: config.update_from_dict({name: value})):
        with pytest.raises(UnknownSettingError, match=says):
            change(EZMConfig(), name, 1)


@pytest.mark.parametrize(
    ("setter", "name", "says"),
    [
        ("training", "value_los_coeff", "Did you mean value_loss_coeff"),
        ("training", "num_simulations", r"It is set by \.search\(num_simulations="),
        ("training", "n_step", r"Here it is \.training\(td_steps="),
        ("search", "lr", r"It is set by \.training\(lr="),
        ("env_runners", "num_env_runer", "Did you mean num_env_runners"),
        ("learners", "num_env_runners", r"It is set by \.env_runners\(num_env_runners="),
    ],
)
def test_a_setter_says_which_name_was_meant(setter: str, name: str, says: str) -> None:
    with pytest.raises(TypeError, match=rf"{setter}\(\) got an unexpected .*{name}.*{says}"):
        getattr(EZMConfig(), setter)(**{name: 1})


class ConfigOfMyOwn(EZMConfig):
    """As users extend RLlib's configs."""

    def __init__(self) -> None:
        super().__init__()
        self.my_setting = 3


def test_a_subclass_may_have_settings_of_its_own() -> None:
    config = ConfigOfMyOwn().update_from_dict({"my_setting": 4})
    config.my_setting = 5
    assert config.copy(copy_frozen=False).my_setting == 5
    with pytest.raises(UnknownSettingError):
        write(config, "my_settings", 6)


def test_a_config_survives_a_dict_and_the_json_of_tune() -> None:
    config = small_config().training(lr=3e-4).learners(num_learners=0)
    stored = json.dumps(config.to_dict(), cls=TuneFunctionEncoder)
    decoded = TuneFunctionDecoder(allow_cloudpickle=True).decode(stored)
    EZMConfig().update_from_dict(decoded).validate()
    rebuilt = EZMConfig().update_from_dict(config.to_dict())
    for name in (*defaults(RLlibSettings), *OWN):
        assert getattr(rebuilt, name) == getattr(config, name), name


def test_every_hook_of_rllib_is_known() -> None:
    ours = {name for setter, name in ARGUMENTS if setter == "callbacks"} - {"callbacks_class"}
    assert ours | set(OLD_HOOKS) | {"on_workers_recreated"} == HOOKS


@pytest.mark.parametrize("hook", sorted(OLD_HOOKS))
def test_a_hook_that_is_never_called_is_refused(hook: str) -> None:
    mine = type("Mine", (RLlibCallback,), {hook: lambda self, **kwargs: None})
    for given in (mine, [RLlibCallback, mine]):
        with pytest.raises(ValueError, match=rf"Mine\.{hook} would never be called: "):
            small_config().callbacks(given).validate()
