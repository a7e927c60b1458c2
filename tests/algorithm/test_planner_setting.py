"""A search that the package does not know, chosen in the config, trains an agent."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers.shooting_planner import ShootingPlanner
from helpers.tiny import build_module, scripted_task, tiny_config

from rllib_ezm.search import GumbelPlanner


def test_the_gumbel_search_is_the_default() -> None:
    module = build_module(tiny_config([scripted_task(5)]))
    assert type(module.planner(module.model)) is GumbelPlanner


@pytest.mark.parametrize("setting", [{"policy_loss": "distribution"}, {"replayed_candidate": True}])
def test_what_needs_candidates_is_refused_without_them(setting: dict[str, Any]) -> None:
    config = tiny_config([scripted_task(5)]).training(**setting)
    config.validate()
    config.search(planner=ShootingPlanner)
    name = next(iter(setting))
    with pytest.raises(
        ValueError, match=f"{name}=.* those of ShootingPlanner have not: use {name}="
    ):
        config.validate()


@pytest.mark.usefixtures("ray_cluster")
def test_a_planner_class_acts_reanalyzes_and_evaluates() -> None:
    class Counted(ShootingPlanner):
        """Defined here, so that env runners can only know it from the config."""

        roots_searched = 0

        def search(self, model: Any, root: Any, task_ids: torch.Tensor, *args: Any) -> Any:
            self.roots_searched += len(task_ids)
            return super().search(model, root, task_ids, *args)

    config = (
        tiny_config([scripted_task(20), scripted_task(25, 3, 2)])
        .search(planner=Counted)
        .env_runners(num_env_runners=1)
        .evaluation(evaluation_interval=1, evaluation_duration=1)
        .reporting(min_sample_timesteps_per_iteration=100)
    )
    algorithm = config.build_algo()
    try:
        result = algorithm.train()
        assert result["num_updates_lifetime"] > 0
        assert math.isfinite(result["evaluation"]["env_runners"]["episode_return_mean"])

        def searched(runner: Any) -> tuple[str, int]:
            planner = runner.module._planner
            return type(planner).__name__, planner.roots_searched

        (acted,) = algorithm.env_runner_group.foreach_env_runner(searched, local_env_runner=False)
        (evaluated,) = algorithm.eval_env_runner_group.foreach_env_runner(searched)
        learner = algorithm.learner_group._learner
        reanalyzer = learner.gradient_step.reanalyzer
        assert acted[0] == evaluated[0] == type(reanalyzer.planner).__name__ == "Counted"
        assert acted[1] >= 100
        assert evaluated[1] >= 45
        segments = config.train_batch_size_per_learner * (config.unroll_steps + 1)
        updates = result["num_updates_lifetime"]
        assert reanalyzer.planner.roots_searched == updates * segments
    finally:
        algorithm.stop()
