from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from helpers.tiny import scripted_task, tiny_config

from rllib_ezm.cli.experiment_file import ExperimentFile
from rllib_ezm.cli.forecast import Rates, forecast, probe_as_trial
from rllib_ezm.cli.main import main
from rllib_ezm.utils.errors import UserError

RATES = Rates(
    seconds_per_env_step=0.01,
    seconds_per_update=0.5,
    env_steps=100,
    updates=10,
    memory=2**30,
    device_memory=0,
)


def experiment(stop):
    """Two tasks; 40 env steps before learning, then an update per two env steps."""
    config = tiny_config([scripted_task(5), scripted_task(10)])
    config.training(replay_ratio=0.5).evaluation(evaluation_interval=2, evaluation_duration=3)
    config.reporting(min_sample_timesteps_per_iteration=100)
    return ExperimentFile(Path("experiment.py"), config, stop)


@pytest.mark.parametrize(
    ("stop", "env_steps"),
    [
        ({"num_env_steps_sampled_lifetime": 1040}, 1040),
        ({"num_updates_lifetime": 500}, 40 + 500 / 0.5),
        ({"time_total_s": 0.4 + 26.0}, 40 + 26.0 / (0.01 + 0.5 * 0.5)),
        ({"time_total_s": 0.2}, 20),
        ({"num_env_steps_sampled_lifetime": 9000, "num_updates_lifetime": 500}, 1040),
    ],
)
def test_the_length_of_a_run_follows_from_its_stop(stop, env_steps):
    assert forecast(experiment(stop), RATES).env_steps == pytest.approx(env_steps)


def test_hours_by_hand():
    plan = forecast(experiment({"num_env_steps_sampled_lifetime": 1040}), RATES)
    assert plan.updates == 500
    assert plan.collection_hours == pytest.approx(1040 * 0.01 / 3600)
    assert plan.update_hours == pytest.approx(500 * 0.5 / 3600)
    # 1040 / 100 / 2 evaluations of 3 episodes of 50 and of 100 env steps at most.
    assert plan.evaluation_hours == pytest.approx(5.2 * 3 * 150 * 0.01 / 3600)
    assert plan.hours == pytest.approx(
        plan.collection_hours + plan.update_hours + plan.evaluation_hours
    )
    text = "\n".join(plan.lines())
    assert "100.0 env steps/s" in text
    assert "2.00 updates/s" in text


def test_the_replay_buffer_is_added_as_far_as_the_run_fills_it():
    file = experiment({"num_env_steps_sampled_lifetime": 1000})
    half = 1000 / (2 * file.config.capacity_per_task)
    needed = file.config.replay_bytes()
    assert forecast(file, RATES).memory == int(RATES.memory + half * needed)
    endless = dataclasses.replace(file, stop={"num_env_steps_sampled_lifetime": 10**9})
    assert forecast(endless, RATES).memory == RATES.memory + needed


@pytest.mark.parametrize("stop", [None, {"training_iteration": 10}])
def test_a_run_without_a_known_end_is_refused(stop):
    with pytest.raises(UserError, match="no end to plan for"):
        forecast(experiment(stop), RATES)


def test_a_probe_measures_collection_and_learning(ray_cluster):
    rates = probe_as_trial(tiny_config(["gym:Pendulum-v1"]), seconds=1.0)
    assert rates.updates >= 1
    assert rates.env_steps >= rates.updates
    assert rates.seconds_per_env_step > 0
    assert rates.seconds_per_update > 0
    assert rates.memory > 2**26


def test_a_probe_without_updates_says_so(ray_cluster):
    config = tiny_config(["gym:Pendulum-v1"]).training(replay_ratio=1e-6)
    with pytest.raises(UserError, match="no update within"):
        probe_as_trial(config, seconds=0.05)


def test_other_algorithms_are_refused(tmp_path, capsys):
    file = tmp_path / "ppo.py"
    file.write_text(
        "from ray.rllib.algorithms.ppo import PPOConfig\n"
        "config = PPOConfig().environment('Pendulum-v1')\n"
    )
    assert main(["plan", str(file)]) == 2
    assert "not an EZMConfig" in capsys.readouterr().err
