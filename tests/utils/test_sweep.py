from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import scripted_task, tiny_config
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.search.variant_generator import generate_variants

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.cli.experiment_file import ExperimentFile, load_experiment_file, running_as_script
from rllib_ezm.utils.sweep import VARIANT, configs_of, sweep

EXAMPLES = Path(__file__).parents[2] / "tuned_examples"
EMBEDDING = ("rep", "dyn", "rew", "vp")
ABLATIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "no path consistency": {"path_consistency_coeff": 0.0},
    "no independent replay": {"independent_replay": False},
    "no embedding in rep": {"task_embedding": ("dyn", "rew", "vp")},
    "no embedding in dyn": {"task_embedding": ("rep", "rew", "vp")},
    "no embedding in rew": {"task_embedding": ("rep", "dyn", "vp")},
    "no embedding in vp": {"task_embedding": ("rep", "dyn", "rew")},
    "no embedding in dyn, rew, vp": {"task_embedding": ("rep",)},
    "2 value heads, mean": {"value_reduction": "mean"},
    "5 value heads, random pair": {"num_value_heads": 5},
    "5 value heads, min": {"num_value_heads": 5, "value_reduction": "min"},
    "5 value heads, mean": {"num_value_heads": 5, "value_reduction": "mean"},
    "a quarter of the targets fresh": {"reanalyze_ratio": 0.25},
    "a sixteenth of the targets fresh": {"reanalyze_ratio": 0.06},
    "no replayed candidate": {"replayed_candidate": False},
    "no other task's policy": {"cross_task_probability": 0.0},
    "4 refined candidates": {"refined_candidates": 4},
}
FULL = {
    "path_consistency_coeff": 0.25,
    "independent_replay": True,
    "task_embedding": EMBEDDING,
    "num_value_heads": 2,
    "value_reduction": "random_pair",
    "reanalyze_ratio": 1.0,
    "replayed_candidate": True,
    "cross_task_probability": 0.25,
    "refined_candidates": 0,
}


GRID = ("path_consistency_coeff", "independent_replay", "task_embedding")


def resolved(config: EZMConfig) -> list[EZMConfig]:
    """The configs of the trials that Tune makes of a config."""
    return [
        EZMConfig().update_from_dict(values) for _, values in generate_variants(config.to_dict())
    ]


def example(name: str) -> ExperimentFile:
    path = EXAMPLES / f"{name}.py"
    with running_as_script(path):
        return load_experiment_file(path)


def test_the_ablations_are_one_grid_of_single_changes() -> None:
    file = example("ablations")
    for config in (file.config, file.scaled_down().config):
        trials = {trial.variant: trial for trial in resolved(config)}
        assert list(trials) == list(ABLATIONS)
        for name, changes in ABLATIONS.items():
            trial = trials[name]
            trial.validate()
            assert {field: getattr(trial, field) for field in FULL} == FULL | changes
            assert trial.latent_dim == trials["full"].latent_dim
            assert trial.env_config == trials["full"].env_config
    assert file.stop == {"num_env_steps_sampled_lifetime": 12_000}


def test_asynchrony_varies_nothing_but_who_does_what_when() -> None:
    file = example("asynchrony")
    trials = {trial.variant: trial for trial in resolved(file.config)}
    assert [trial.num_env_runners for trial in trials.values()] == [0, 1, 2, 4]
    fields = ("replay_ratio", "train_batch_size_per_learner", "num_random_steps", "lr")
    for name, trial in trials.items():
        trial.validate()
        assert trial.asynchronous == (name != "synchronous")
        copies = trial.env_config["envs_per_task"] * max(trial.num_env_runners, 1)
        assert copies == 4, "as many environments in all"
        assert [getattr(trial, field) for field in fields] == [
            getattr(trials["synchronous"], field) for field in fields
        ]
    assert file.stop == {"num_env_steps_sampled_lifetime": 15_000}


def test_task_scaling_keeps_the_budget_of_each_task() -> None:
    file = example("task_scaling")
    trials = {trial.variant: trial for trial in resolved(file.config)}
    assert [len(trial.env_config["tasks"]) for trial in trials.values()] == [1] * 6 + [3, 3, 6]
    by_count: dict[int, list[str]] = {}
    for trial in trials.values():
        names = [task.name for task in trial.env_config["tasks"]]
        count = len(names)
        by_count.setdefault(count, []).extend(names)
        assert trial.replay_ratio * count == pytest.approx(1.5), "updates per env step of a task"
        assert trial.train_batch_size_per_learner >= 22 * count
        assert trial.num_random_steps == 1000 * count
        assert trial.latent_dim == 128
        steps = {"env_steps": 20_000}
        assert file.stop("", {"tasks": dict.fromkeys(names, steps)})
        assert not file.stop(
            "", {"tasks": dict.fromkeys(names, steps) | {names[0]: {"env_steps": 0}}}
        )
    assert sorted(by_count[1]) == sorted(by_count[3]) == sorted(by_count[6])
    six = trials["6 tasks"]
    six.validate()
    assert six.get_task_set().obs_dims == (24, 24, 24, 5, 6, 17)
    assert len(file.descriptions()) == 7, "those of the three single walkers are equal"
    small = [len(t.env_config["tasks"]) for t in resolved(file.scaled_down().config)]
    assert small == [1] * 6 + [3, 3, 6]


@pytest.mark.skipif(
    importlib.util.find_spec("humanoid_bench") is None, reason="HumanoidBench is not installed"
)
def test_task_scaling_on_humanoid_bench_has_the_papers_partitions() -> None:
    trials = resolved(example("task_scaling_medium").config)
    sets = [[task.name for task in trial.env_config["tasks"]] for trial in trials]
    assert [len(names) for names in sets] == [1] * 9 + [4, 4, 9]
    assert sets[9] == [f"hb:h1-{task}" for task in ("stand", "walk", "run", "stair")]
    assert sets[10] == [f"hb:h1-{task}" for task in ("crawl", "pole", "slide", "hurdle")]
    assert [name for names in sets[:9] for name in names] == sets[11]
    for trial, names in zip(trials, sets, strict=True):
        assert trial.replay_ratio * len(names) == pytest.approx(0.2)
        assert trial.train_batch_size_per_learner / len(names) > 56


def test_grid_search_on_own_fields() -> None:
    config = tiny_config([scripted_task(5)])
    config.training(path_consistency_coeff=tune.grid_search([0.25, 0.0]))
    config.replay(independent_replay=tune.grid_search([True, False]))
    config.world_model(task_embedding=tune.grid_search([EMBEDDING, ("rep",), ()]))
    trials = resolved(config)
    for trial in trials:
        trial.validate()
    settings = [tuple(getattr(trial, field) for field in GRID) for trial in trials]
    assert len(set(settings)) == 2 * 2 * 3
    assert (0.0, False, ()) in settings


def test_a_sweep_keeps_its_configs_and_multiplies_with_grids() -> None:
    base = tiny_config([scripted_task(5)]).training(lr=tune.grid_search([1e-3, 1e-4]))
    other = base.copy(copy_frozen=False).search(num_simulations=2).tasks([scripted_task(6)])
    config = sweep({"base": base, "other": other})
    assert base.num_simulations == 4, "the given configs stay as they are"
    found = {(t.variant, t.num_simulations, t.get_task_set().names, t.lr) for t in resolved(config)}
    assert found == {
        (name, simulations, (task,), lr)
        for name, simulations, task in (("base", 4, "scripted-5"), ("other", 2, "scripted-6"))
        for lr in (1e-3, 1e-4)
    }
    again = configs_of(config)
    assert {n: c.to_dict() for n, c in again.items()} == {
        "base": base.to_dict(),
        "other": other.to_dict(),
    }
    assert configs_of(base) == {}


def test_a_sweep_of_nothing_or_of_two_algorithms_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        sweep({})
    with pytest.raises(ValueError, match="'ppo' is of another one than 'ezm'"):
        sweep({"ezm": EZMConfig(), "ppo": PPOConfig()})


def test_tune_trains_a_sweep(ray_cluster: None, tmp_path: Path) -> None:
    tasks = ["gym:Pendulum-v1", "dmc:cartpole-balance"]
    full = tiny_config(tasks, max_episode_steps=20)
    full.reporting(min_sample_timesteps_per_iteration=80).training(replay_ratio=0.2)
    configs = {
        "full": full,
        "no IER": full.copy(copy_frozen=False).replay(independent_replay=False),
        "one task": full.copy(copy_frozen=False).tasks(tasks[:1], max_episode_steps=20),
    }
    tuner = tune.Tuner(
        EZM,
        param_space=sweep(configs),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path), stop={"training_iteration": 1}, verbose=0
        ),
    )
    results = {result.config[VARIANT]: result for result in tuner.fit()}
    assert list(results) == list(configs)
    for name, result in results.items():
        assert result.error is None
        assert result.metrics["num_updates_lifetime"] > 0
        assert math.isfinite(result.metrics["normalized_score_mean"])
        assert result.config["independent_replay"] is (name != "no IER")
        assert len(result.metrics["tasks"]) == (1 if name == "one task" else 2)
