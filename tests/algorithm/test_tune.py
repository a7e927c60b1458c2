"""Tune on EZM: a killed driver, a trial that dies, early stopping, population based training."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from helpers.results import nan_paths
from helpers.tiny import tiny_config
from ray import tune
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.cli.inspection import inspect_checkpoint
from rllib_ezm.cli.main import main

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]

TASK = {"name": "gym:Pendulum-v1", "max_episode_steps": 20}
STEPS = 60

EXPERIMENT = """
from rllib_ezm import EZMConfig

config = (
    EZMConfig()
    .tasks([{"name": "gym:Pendulum-v1", "max_episode_steps": 20}])
    .training(
        train_batch_size_per_learner=8,
        unroll_steps=2,
        td_steps=3,
        num_steps_sampled_before_learning_starts=40,
    )
    .world_model(
        latent_dim=16, embedding_dim=8, action_embedding_dim=8, num_blocks=1, num_value_heads=2,
        head_dim=16, projection_dim=16,
    )
    .search(num_simulations=4, num_candidates=4, policy_candidates=2)
    .replay(capacity_per_task=100_000)
    .reporting(min_sample_timesteps_per_iteration=60)
    .debugging(seed=1)
)


def stop(trial_id, result):
    # Only once the file exists, so the run cannot end before it is killed.
    from pathlib import Path

    return Path("{stop_file}").exists()
"""


def tune_config() -> EZMConfig:
    config = tiny_config([TASK]).env_runners(num_env_runners=0)
    return config.reporting(min_sample_timesteps_per_iteration=STEPS)


def env_steps(result: dict[str, Any]) -> int:
    return sum(task["env_steps"] for task in result["tasks"].values())


def assert_goes_on(trial: Path) -> int:
    """The second process of a trial goes on from a checkpoint of the first; returns its iteration.

    What the first did after that checkpoint is done again, and reported again.
    """
    results = [json.loads(line) for line in (trial / "result.json").read_text().splitlines()]
    first, second = (list(part) for _, part in itertools.groupby(results, lambda r: r["pid"]))
    after = second[0]
    iteration = after["training_iteration"] - 1
    assert iteration > 0, "started from scratch"
    before = first[iteration - 1]
    assert before["training_iteration"] == iteration
    assert env_steps(after) == env_steps(before) + STEPS
    assert after["num_updates_lifetime"] > before["num_updates_lifetime"] > 0
    for position, result in enumerate(second):
        assert result["training_iteration"] == iteration + 1 + position
        assert result["replay_transitions"] == env_steps(result)
        assert nan_paths(result) == []
    return iteration


def wait_for_a_checkpoint(experiment: Path, driver: subprocess.Popen[bytes]) -> None:
    """Until the disk holds two whole ones."""
    while len(list(experiment.glob("EZM_*/checkpoint_*/ezm_manifest.json"))) < 2:
        assert driver.poll() is None, "the driver ended by itself"
        time.sleep(0.2)


def test_a_killed_driver_is_resumed_by_another_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, stop_file, experiment = tmp_path / "tiny.py", tmp_path / "stop", tmp_path / "run"
    file.write_text(EXPERIMENT.replace("{stop_file}", str(stop_file)))
    code = "from rllib_ezm.cli.main import main; raise SystemExit(main())"
    driver = subprocess.Popen(
        [
            *(sys.executable, "-c", code, "train", "file", file),
            *("--local-dir", tmp_path, "-n", "run", "--checkpoint-freq", "5"),
            *("--ray-address", ray.get_runtime_context().gcs_address),
        ]
    )
    try:
        wait_for_a_checkpoint(experiment, driver)
    finally:
        driver.kill()
        driver.wait()
    stop_file.touch()
    assert main(["train", "file", str(file), "--resume", str(experiment)]) == 0
    (trial,) = experiment.glob("EZM_*/")
    iteration = assert_goes_on(trial)
    assert iteration % 5 == 0
    (*_, last) = sorted(trial.glob("checkpoint_*"))
    assert f"Checkpoint:  {last}" in capfd.readouterr().out
    assert inspect_checkpoint(last).counters["training iterations"] == iteration + 1


def test_a_trial_that_dies_is_resumed(tmp_path: Path) -> None:
    flag = tmp_path / "died"

    class DiesOnce(EZM):
        """Local, so that Ray ships it to the trial by value."""

        def training_step(self) -> None:
            if self.iteration == 3 and not flag.exists():
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            super().training_step()

    tuner = tune.Tuner(
        DiesOnce,
        param_space=tune_config(),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            stop={"training_iteration": 5},
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=2),
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    )
    result = tuner.fit()[0]
    assert flag.exists()
    assert result.error is None
    assert result.metrics["training_iteration"] == 5
    assert assert_goes_on(Path(result.path)) == 2
    assert env_steps(result.metrics) == 5 * STEPS


def test_asha_over_a_grid_of_ezm_s_own_fields(tmp_path: Path) -> None:
    config = tune_config().search(num_simulations=tune.grid_search([2, 4]))
    config.debugging(seed=tune.grid_search([1, 2]))
    scheduler = ASHAScheduler(
        metric="normalized_score_mean", mode="max", max_t=4, grace_period=1, reduction_factor=2
    )
    tuner = tune.Tuner(
        EZM,
        param_space=config,
        tune_config=tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=2),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    )
    results = tuner.fit()
    assert results.num_errors == 0
    tried = sorted((r.config["num_simulations"], r.config["seed"]) for r in results)
    assert tried == [(2, 1), (2, 2), (4, 1), (4, 2)]
    iterations = [r.metrics["training_iteration"] for r in results]
    assert max(iterations) == 4
    assert sum(iterations) < 4 * 4, "no trial was stopped early"
    assert all(math.isfinite(r.metrics["normalized_score_mean"]) for r in results)


def test_population_based_training_of_the_learning_rate(tmp_path: Path) -> None:
    first_rates, new_rates, took_over = [1e-4, 1e-3], [3e-3, 5e-3], set()

    def stop(trial_id: str, result: dict[str, Any]) -> bool:
        # PBT passes over a trial while the better one has no checkpoint; both go on until it acts.
        if result["config"]["lr"] in new_rates:
            took_over.add(trial_id)
        iteration = result["training_iteration"]
        return (bool(took_over) and iteration >= 8) or iteration == 60

    scheduler = PopulationBasedTraining(
        metric="config/lr",  # any score that tells the trials apart whenever they are compared
        mode="max",
        perturbation_interval=2,
        quantile_fraction=0.5,
        resample_probability=1.0,
        hyperparam_mutations={"lr": new_rates},
    )
    tuner = tune.Tuner(
        EZM,
        param_space=tune_config().training(lr=tune.grid_search(first_rates)),
        tune_config=tune.TuneConfig(scheduler=scheduler),
        run_config=tune.RunConfig(storage_path=str(tmp_path), stop=stop, verbose=0),
    )
    results = tuner.fit()
    assert results.num_errors == 0
    assert took_over, "no trial took over another one"
    for result in results:
        iterations = result.metrics["training_iteration"]
        assert env_steps(result.metrics) == result.metrics["replay_transitions"]
        assert env_steps(result.metrics) == iterations * STEPS
        learner = result.metrics["learners"][DEFAULT_MODULE_ID]
        used, chosen = learner["default_optimizer_learning_rate"], result.metrics["config"]["lr"]
        assert used == pytest.approx(chosen)
