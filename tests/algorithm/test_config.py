from __future__ import annotations

import math
from typing import Any

import pytest
from helpers.tiny import scripted_task, tiny_config
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner
from rllib_ezm.algorithm.evaluation import evaluate_per_task
from rllib_ezm.algorithm.learner import EZMTorchLearner
from rllib_ezm.algorithm.rl_module import EZMTorchRLModule
from rllib_ezm.algorithm.setters import GROUPS
from rllib_ezm.models.settings import SUB_NETWORKS
from rllib_ezm.utils.settings import settings_of

# Wrong values of every setting, and what the message must say besides the setting's name.
WRONG_TRAINING: dict[str, tuple[list[Any], str]] = {
    "weight_decay": ([-1e-5, math.nan, "0"], r">= 0|finite number"),
    "unroll_steps": ([0, 2.5, True], "integer >= 1"),
    "td_steps": ([0, None], "integer >= 1"),
    "replay_ratio": ([0.0, -1, math.inf, "high"], r"> 0|finite number"),
    "num_steps_sampled_before_learning_starts": ([-1, 1e3], "integer >= 0"),
    "num_random_steps": ([-1, None], "integer >= 0"),
    "cross_task_probability": ([-0.1, 1.1, None], r"\[0, 1\]|finite number"),
    "weight_sync_interval": ([0], "integer >= 1"),
    "value_mixing": (["mixed", None], "variance.*age.*td.*search"),
    "value_mixing_age": ([-1, 2e5], "integer >= 0"),
    "value_mixing_start": ([-1], "integer >= 0"),
    "compile": (["on", True], "off.*default.*max-autotune"),
    "capture": (["auto", 1], "True or False"),
    "metrics_interval": ([0, 1.5], "integer >= 1"),
    "variance_window_decay": ([0.0, 1.0, None], r"in \(0, 1\)"),
    "policy_loss": (["mle"], "best_action.*distribution"),
    "latent_gradient_scale": ([-0.1, 1.5, None], r"\[0, 1\]"),
    "reward_loss_coeff": ([-1.0], ">= 0"),
    "value_loss_coeff": ([-1.0, None], ">= 0|finite number"),
    "policy_loss_coeff": ([-1.0], ">= 0"),
    "temporal_consistency_coeff": ([-1.0], ">= 0"),
    "path_consistency_coeff": ([-1.0], ">= 0; 0 switches it off"),
    "entropy_coeff": ([math.nan, None, [[0, 1.0]]], "finite number"),
    "squashed_entropy": (["yes", 1], "True or False"),
    "target_tau": ([0.0, 1.1, None], r"\(0, 1\]"),
    "target_period": ([0], "integer >= 1"),
    "reanalyze_ratio": ([-0.1, 1.1, None], r"\[0, 1\]|finite number"),
    "replayed_candidate": ([1, None], "True or False"),
    "train_precision": (["fp32", "float16"], "bfloat16"),
    "max_consecutive_nonfinite_updates": ([0, 2.5, None], "integer >= 1"),
    "frozen_networks": (
        ["reward", ("rewards",), SUB_NETWORKS],
        "any of .*'reward', 'value_policy'|leaves nothing to learn",
    ),
    "lr": ([0.0, -1e-4, "fast"], "number > 0 or a schedule|list of 2 or more"),
    "gamma": ([0.0, 1.0, 99], r"in \(0, 1\)"),
    "grad_clip": ([0.0, -5, "no"], "> 0, or None|finite number, or None"),
    "grad_clip_by": (["value"], "global_norm"),
    "train_batch_size_per_learner": ([0, 1.5], "integer >= 1"),
    "num_epochs": ([2], "leave num_epochs at 1"),
    "minibatch_size": ([4], "minibatch_size unset"),
}
WRONG_WORLD_MODEL: dict[str, tuple[list[Any], str]] = {
    "latent_dim": ([0, 31.5], "integer >= 1"),
    "embedding_dim": ([0], "integer >= 1"),
    "action_embedding_dim": ([0], "integer >= 1"),
    "num_blocks": ([0], "integer >= 1"),
    "num_value_heads": ([0, "five"], "integer >= 1"),
    "head_dim": ([0], "integer >= 1"),
    "projection_dim": ([0], "integer >= 1"),
    "num_bins": ([1, 51.0], "integer >= 2"),
    "reward_support": ([(1, 1), (2, 1), (0,), 300, (-math.inf, 1)], "low < high"),
    "value_support": ([(1, 1), None], "low < high"),
    "log_std_min": ([2.0, math.nan], "below log_std_max|finite number"),
    "log_std_max": ([-10.0, None], "log_std_min.*must be below|finite number"),
    "task_embedding": ([("rep", "policy"), "rep", None], "rep.*dyn.*rew.*vp"),
    "normalized_action_dim": ([0, 1.5], "integer >= 1, or None"),
}
WRONG_SEARCH: dict[str, tuple[list[Any], str]] = {
    "planner": (["mppi", None, dict], "gumbel.*WorldModelPlanner"),
    "num_simulations": ([0, -1, 8.0], "integer >= 1"),
    "num_candidates": ([0, 4.0], "integer >= 1"),
    "policy_candidates": ([-1, 5], "integer >= 0|from 0 to num_candidates=4"),
    "refined_candidates": ([-1, 5], "integer >= 0|from 0 to num_candidates=4"),
    "refinement_steps": ([0, None], "integer >= 1"),
    "refinement_size": ([0.0, None], "> 0"),
    "wide_std_factor": ([0.0, None], "> 0|finite number"),
    "root_prior": (["gaussian"], "uniform.*policy"),
    "use_gumbel_noise": (["yes", 1], "True or False"),
    "c_visit": ([-1.0, None], ">= 0"),
    "c_scale": ([-0.1, math.inf], ">= 0"),
    "minmax_delta": ([0.0, None], "> 0|finite number"),
    "wide_candidates_at_eval": ([None], "True or False"),
    "num_simulations_at_eval": ([-1, 1.5], "integer >= 0, or None"),
    "value_reduction": (["max", 2, None], "random_pair.*min.*mean"),
    "value_clip_min": (["0", -math.inf], "finite number, or None"),
    "inference_precision": (["half"], "float32.*bfloat16.*float16"),
}
WRONG_REPLAY: dict[str, tuple[list[Any], str]] = {
    "capacity_per_task": ([0, 1e6, 5], "integer >= 1|segment.*raise it"),
    "independent_replay": (["no"], "True or False"),
    "priority_alpha": ([-0.1, 1.1], r"\[0, 1\]"),
    "priority_beta": ([-0.1, 1.1, None], r"\[0, 1\]|finite number"),
    "priority_epsilon": ([0.0, -1e-6, "1e-6"], "> 0"),
    "min_importance_weight": ([-0.1, 1.1], r"\[0, 1\]"),
    "max_replay_bytes": ([0, 1e9], "integer >= 1, or None"),
    "store_buffer_in_checkpoints": ([1], "True or False"),
    "replay_device": (["cuda", None], "host.*learner"),
    "replay_dtype": (["bfloat16"], "float32.*float16"),
    "num_replay_actors": ([-1, 1.5, 99], "integer >= 0|use at most"),
    "num_cpus_per_replay_actor": ([-1, None], ">= 0|finite number"),
}
WRONG_ASYNCHRONY: dict[str, tuple[list[Any], str]] = {
    "asynchronous": (["yes"], "True or False"),
    "num_reanalyze_workers": ([-1, 1.5], "integer >= 0"),
    "num_cpus_per_reanalyze_worker": ([-1, None], ">= 0|finite number"),
    "num_gpus_per_reanalyze_worker": ([-0.5], ">= 0"),
    "max_queued_batches": ([0, None], "integer >= 1"),
    "max_updates_behind": ([-1, 0.5], "integer >= 0"),
    "max_weight_age": ([0], "integer >= 1"),
    "weight_transfer_dtype": (["float16"], "float32.*bfloat16"),
}
WRONG = {
    "training": WRONG_TRAINING,
    "world_model": WRONG_WORLD_MODEL,
    "search": WRONG_SEARCH,
    "replay": WRONG_REPLAY,
    "asynchrony": WRONG_ASYNCHRONY,
    "env_runners": {
        "num_envs_per_env_runner": ([2], "envs_per_task"),
        "rollout_fragment_length": (["auto"], "integer >= 1"),
        "batch_mode": (["complete_episodes"], "truncate_episodes"),
    },
    "evaluation": {
        "evaluation_duration": ([0, 1.5], "an int"),
        "evaluation_duration_unit": (["timesteps"], "episodes"),
    },
    "fault_tolerance": {"restart_failed_sub_environments": ([True], "built again")},
    "reporting": {"metrics_num_episodes_for_smoothing": ([0], "integer >= 1")},
}
CASES = [
    pytest.param(section, name, value, says, id=f"{name}={value!r}")
    for section, settings in WRONG.items()
    for name, (values, says) in settings.items()
    for value in values
]


def small_config() -> EZMConfig:
    return tiny_config([scripted_task(5)])


def own_settings(section: str) -> set[str]:
    return set(settings_of(GROUPS[section]))


@pytest.mark.parametrize(("section", "name", "value", "says"), CASES)
def test_a_wrong_value_gets_an_error_that_names_the_fix(
    section: str, name: str, value: Any, says: str
) -> None:
    config = getattr(small_config(), section)(**{name: value})
    with pytest.raises(ValueError, match=f"(?s)(?=.*{name})(?=.*({says}))"):
        config.validate()


@pytest.mark.parametrize("section", ["training", "world_model", "search", "replay", "asynchrony"])
def test_a_wrong_value_of_every_own_setting_is_tried(section: str) -> None:
    assert own_settings(section) <= set(WRONG[section])


@pytest.mark.parametrize("section", ["training", "world_model", "search", "replay", "asynchrony"])
def test_an_unknown_setting_is_refused(section: str) -> None:
    with pytest.raises(TypeError, match="num_simulation_steps"):
        getattr(EZMConfig(), section)(num_simulation_steps=3)


@pytest.mark.parametrize("section", ["training", "world_model", "search", "replay", "asynchrony"])
def test_grid_searches_pass_through_the_setters(section: str) -> None:
    for name in own_settings(section):
        grid = tune.grid_search([1, 2])
        config = getattr(EZMConfig(), section)(**{name: grid})
        assert getattr(config, name) == {"grid_search": [1, 2]}
        assert {"grid_search": [1, 2]} in config.to_dict().values()


def test_a_grid_search_over_tasks_passes_through() -> None:
    grid = tune.grid_search([["gym:Pendulum-v1"], [{"name": "dmc:walker-run"}]])
    config = EZMConfig().tasks(grid)
    assert config.env_config["tasks"] == grid
    chosen = EZMConfig().update_from_dict(
        {"env_config": {**config.env_config, "tasks": [{"name": "gym:Pendulum-v1"}]}}
    )
    assert chosen.get_task_set().names == ("gym:Pendulum-v1",)


@pytest.mark.parametrize(
    ("tasks", "options", "says"),
    [
        ([], {}, r"No tasks: call \.tasks"),
        (["gym:Pendulum-v1"], {"termination": "never"}, "respect.*ignore"),
        (["gym:Pendulum-v1"], {"envs_per_task": 0}, "envs_per_task.*integer >= 1"),
        (["gym:Pendulum-v1"], {"max_consecutive_env_failures": 0}, "env_failures.*integer >= 1"),
        (["gym:Pendulum-v1"], {"num_env_processes": -1}, "num_env_processes=-1 .*integer >= 0"),
        (["gym:Pendulum-v1"], {"env_step_timeout_s": 0}, "env_step_timeout_s=0 .*> 0, or None"),
        (["gym:Pendulum-v1"], {"env_step_timeout_s": 500.0}, r"\(sample_timeout_s=5000\)"),
        (["gym:Pendulum-v1"] * 2, {}, "more than once"),
        (["gym:CartPole-v1"], {}, "Discrete actions are out of scope"),
    ],
)
def test_wrong_tasks_are_refused_at_validation(
    tasks: list[str], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        EZMConfig().tasks(tasks, **options).validate()


def test_wrong_task_names_and_options_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="Did you mean dmc:walker-walk"):
        EZMConfig().tasks(["dmc:walker-wlak"])
    with pytest.raises(ValueError, match="Did you mean action_repeat"):
        EZMConfig().tasks(["dmc:walker-walk"], action_repeats=2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.training(train_batch_size_per_learner=1), "use at least 2"),
        (
            lambda c: c.search(num_simulations=1, num_candidates=1, policy_candidates=1).training(
                replayed_candidate=True
            ),
            "leaves nothing",
        ),
        (
            lambda c: c.search(refined_candidates=4).training(replayed_candidate=True),
            "refined_candidates=3",
        ),
        (
            lambda c: c.api_stack(
                enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
            ),
            "new API stack",
        ),
        (lambda c: c.multi_agent(policies={"a", "b"}), r"\.tasks\("),
        (lambda c: c.env_runners(gym_env_vectorize_mode="async"), "num_env_processes=n"),
        (lambda c: c.asynchrony(num_reanalyze_workers=2), r"set .asynchrony\(True\)"),
        (
            lambda c: c.asynchrony(True).learners(num_learners=1),
            r"set \.env_runners\(num_env_runners=1\)",
        ),
        (
            lambda c: c.asynchrony(True).env_runners(num_env_runners=1),
            r"set \.learners\(num_learners=1\)",
        ),
        (
            lambda c: (
                c.asynchrony(True, max_weight_age=4)
                .env_runners(num_env_runners=1)
                .learners(num_learners=1)
            ),
            "less than weight_sync_interval=5",
        ),
        (
            lambda c: c.evaluation(
                evaluation_parallel_to_training=True,
                evaluation_interval=1,
                evaluation_num_env_runners=1,
            ),
            "beside an evaluation",
        ),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(change: Any, says: str) -> None:
    config = tiny_config([scripted_task(5), scripted_task(6)])
    change(config)
    with pytest.raises(ValueError, match=says):
        config.validate()


def test_msgpack_checkpoints_are_refused() -> None:
    config = small_config()
    config._use_msgpack_checkpoints = True
    with pytest.raises(ValueError, match="leave it False"):
        config.validate()


def test_an_automatic_evaluation_duration_is_refused() -> None:
    config = small_config().evaluation(
        evaluation_duration="auto",
        evaluation_parallel_to_training=True,
        evaluation_interval=1,
        evaluation_num_env_runners=1,
    )
    with pytest.raises(ValueError, match="evaluation_duration='auto' must be an integer >= 1"):
        config.validate()


def test_borderline_values_are_accepted() -> None:
    config = small_config()
    config.training(target_tau=1.0, reanalyze_ratio=0.0, path_consistency_coeff=0.0, grad_clip=None)
    config.training(lr=[[0, 1e-4], [1000, 1e-5]], entropy_coeff=-0.01, num_random_steps=0)
    config.search(num_simulations_at_eval=0, policy_candidates=0, value_clip_min=0)
    config.replay(max_replay_bytes=None, capacity_per_task=6)
    config.world_model(task_embedding=[], reward_support=[-1, 1])
    config.validate()


def test_the_defaults_are_the_papers() -> None:
    config = EZMConfig()
    expected = {
        "gamma": 0.99,
        "lr": 1e-4,
        "train_batch_size_per_learner": 512,
        "weight_decay": 2e-5,
        "grad_clip": 5.0,
        "unroll_steps": 5,
        "td_steps": 5,
        "value_mixing": "variance",
        "reward_loss_coeff": 1.0,
        "value_loss_coeff": 0.25,
        "policy_loss_coeff": 1.0,
        "temporal_consistency_coeff": 5.0,
        "path_consistency_coeff": 0.25,
        "latent_dim": 512,
        "embedding_dim": 128,
        "action_embedding_dim": 64,
        "num_blocks": 3,
        "num_value_heads": 5,
        "num_bins": 51,
        "reward_support": (-299.0, 299.0),
        "value_support": (-299.0, 299.0),
        "task_embedding": ("rep", "dyn", "rew", "vp"),
        "num_simulations": 32,
        "num_candidates": 16,
        "policy_candidates": 4,
        "wide_std_factor": 3.0,
        "priority_alpha": 1.0,
        "priority_beta": 1.0,
        "capacity_per_task": 1_000_000,
        "independent_replay": True,
        "replay_ratio": 0.3,
    }
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.env_config["termination"] == "respect"


def test_the_paper_preset() -> None:
    config = EZMConfig().training(value_mixing="td", entropy_coeff=1.0).paper()
    assert (config.value_mixing, config.entropy_coeff) == ("variance", 0.0)
    assert config.use_gumbel_noise is True
    assert config.root_prior == "policy"
    assert config.value_reduction == "mean"


def test_the_released_preset() -> None:
    config = small_config().released()
    assert config.env_config["termination"] == "ignore"
    assert len(config.env_config["tasks"]) == 1, "the preset keeps the tasks"
    assert config.value_mixing == "age"
    assert config.entropy_coeff == -5e-3 * config.get_task_set().action_dim
    assert (config.use_gumbel_noise, config.root_prior) == (False, "uniform")
    assert (config.value_reduction, config.value_clip_min) == ("random_pair", 0.0)
    assert config.wide_candidates_at_eval is True
    assert config.evaluation_duration == 1
    config.validate()


def test_the_module_learns_sizes_from_tasks_and_settings() -> None:
    config = tiny_config([scripted_task(5, 2, 3), scripted_task(6, 4, 1)])
    config.search(num_simulations_at_eval=0).training(gamma=0.9, num_random_steps=7)
    model = config.model_config
    assert (model["obs_dims"], model["action_dims"]) == ([2, 4], [3, 1])
    assert model["world_model"]["latent_dim"] == 32
    assert model["search"]["discount"] == 0.9
    assert model["search"]["num_simulations"] == 4
    assert model["evaluation_search"]["num_simulations"] == 0
    assert model["evaluation_search"]["use_gumbel_noise"] is False
    assert model["evaluation_search"]["wide_candidates"] is False
    assert model["num_random_steps"] == 7


def test_every_world_model_setting_reaches_the_module() -> None:
    assert set(small_config().model_config["world_model"]) == own_settings("world_model")


def test_the_classes_of_the_plugin_are_the_defaults() -> None:
    config = EZMConfig()
    assert config.env_runner_cls is MultiTaskEnvRunner
    assert config.get_default_learner_class() is EZMTorchLearner
    assert config.get_default_rl_module_spec().module_class is EZMTorchRLModule
    assert config.custom_evaluation_function is evaluate_per_task


def test_a_copy_and_a_dict_keep_every_setting() -> None:
    config = small_config().training(lr=3e-4).search(root_prior="policy").replay(priority_beta=0.4)
    rebuilt = EZMConfig().update_from_dict(config.to_dict())
    for twin in (rebuilt, config.copy(copy_frozen=False)):
        assert isinstance(twin, AlgorithmConfig)
        assert (twin.lr, twin.root_prior, twin.priority_beta) == (3e-4, "policy", 0.4)
        assert twin.get_task_set().names == config.get_task_set().names


def test_a_lost_env_runner_is_not_waited_for() -> None:
    config = EZMConfig()
    assert config.delay_between_env_runner_restarts_s == 1.0, "RLlib's own default is a minute"
    assert config.env_runner_health_probe_timeout_s == 0.2, "RLlib's own default is half a minute"
    assert config.restart_failed_env_runners
