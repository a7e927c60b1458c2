from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from helpers.tiny import scripted_task, tiny_config

from rllib_ezm.cli import estimate
from rllib_ezm.cli.estimate import duration, duration_notes
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
        ({"timesteps_total": 1040}, 1040),
        ({"env_runners/num_env_steps_sampled_lifetime": 1040}, 1040),
        # Two slots with fragments of 10: 5 of them are the 100 env steps of an iteration.
        ({"training_iteration": 7}, 700),
        ({"training_iteration": 7, "evaluation/normalized_score_mean": 0.9}, 700),
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


@pytest.mark.parametrize(
    "stop",
    [None, {"evaluation/normalized_score_mean": 0.9}, lambda trial_id, result: False],
)
def test_of_a_run_without_a_known_end_a_part_is_planned(stop):
    plan = forecast(experiment(stop), RATES)
    assert plan.env_steps == 100_000
    text = "\n".join(plan.lines())
    assert "where the run ends is not known" in text
    assert "a part: 100,000 env steps" in text


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


@pytest.mark.parametrize(
    ("stop", "says"),
    [
        ({"time_total_s": 5400, "num_env_steps_sampled_lifetime": 10**9}, ["at most 1.5 h"]),
        ({"num_env_steps_sampled_lifetime": 500}, []),
        ({"evaluation/normalized_score_mean": 0.9}, []),
        (None, []),
    ],
)
def test_what_is_known_or_short_is_not_probed(stop, says):
    notes = list(duration_notes(experiment(stop)))  # no Ray is needed
    assert len(notes) == len(says)
    assert all(text in note for text, note in zip(says, notes, strict=True))


def test_a_file_that_takes_hours_says_so(ray_cluster, monkeypatch):
    monkeypatch.setattr(estimate, "PROBE_SECONDS", 0.5)
    file = experiment({"num_env_steps_sampled_lifetime": 10**9})
    (note,) = duration_notes(file)
    assert re.search(r"about [\d.]+ (h|days) on this machine \(1,000,000,000 env steps", note)


@pytest.mark.parametrize(
    ("hours", "text"), [(0.001, "1 min"), (0.5, "30 min"), (5.25, "5.2 h"), (240, "10.0 days")]
)
def test_durations_are_in_the_unit_a_person_would_choose(hours, text):
    assert duration(hours) == text
