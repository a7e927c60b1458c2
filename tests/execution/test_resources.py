"""What cannot be placed fails with what it asks for and what is there."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from helpers.tiny import tiny_config
from ray import tune

from rllib_ezm import EZM, EZMConfig
from rllib_ezm.execution import resources
from rllib_ezm.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("ray_cluster")

TOO_MANY = r"asks for 10\d CPU, but Ray has 8: .*num_cpus"


@pytest.fixture
def too_large() -> EZMConfig:
    """For a Ray of 8 logical CPUs."""
    return tiny_config(["gym:Pendulum-v1"]).env_runners(num_env_runners=100)


def test_build_algo_says_what_is_missing(too_large: EZMConfig) -> None:
    with pytest.raises(UserError, match=TOO_MANY):
        too_large.build_algo()


def test_tune_says_what_is_missing(too_large: EZMConfig, tmp_path: Path) -> None:
    tuner = tune.Tuner(
        EZM,
        param_space=too_large,
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    )
    with pytest.raises((UserError, tune.TuneError), match=TOO_MANY):
        tuner.fit()


def test_a_cluster_of_others_may_grow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resources, "is_own_cluster", lambda: False)
    with caplog.at_level(logging.WARNING, logger="rllib_ezm.execution.resources"):
        resources.check_fits({"CPU": 8.0})
        assert not caplog.records
        resources.check_fits({"CPU": 9.0, "GPU": 1.0}, [{"CPU": 1.0}])
    assert [record.getMessage() for record in caplog.records] == [
        "a run asks for 9 CPU, but Ray has 8: it waits until the cluster has grown.",
        "a run asks for 1 GPU, but Ray has 0: it waits until the cluster has grown.",
    ]


def test_a_process_must_fit_on_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0}},
        {"Alive": True, "Resources": {"CPU": 1.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr(resources.ray, "nodes", lambda: nodes)
    resources.check_fits({"CPU": 5.0}, [{"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0}, {"GPU": 0}])
    found = r"asks for 2 CPU and 1 GPU, but no node of Ray has that: 1 CPU and 1 GPU; 4 CPU and 0"
    with pytest.raises(UserError, match=found):
        resources.check_fits({}, [{"CPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}])


@pytest.mark.parametrize(
    ("learners", "message"),
    [
        ({"num_gpus_per_learner": 1}, "num_gpus_per_learner=1, but torch .* sees no CUDA device"),
        ({"num_learners": 1, "num_gpus_per_learner": 1}, "asks for 1 GPU, but Ray has 0"),
    ],
)
def test_a_gpu_that_is_not_there_is_named_at_once(
    learners: dict[str, int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = tiny_config(["gym:Pendulum-v1"]).learners(**learners)
    with pytest.raises(UserError, match=message):
        config.build_algo()
