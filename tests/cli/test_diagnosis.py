from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import ray
from helpers.tiny import scripted_task, tiny_config
from packaging.requirements import Requirement

from rllib_ezm.cli import diagnosis as doctor
from rllib_ezm.cli.diagnosis import FAILURE, NOTE, OK, WARNING
from rllib_ezm.cli.experiment_file import ExperimentFile, load_experiment_file
from rllib_ezm.cli.main import main
from rllib_ezm.tasks import humanoid_bench_import

EXAMPLE = Path(__file__).parents[2] / "tuned_examples" / "ezm_quickstart.py"


def of(subject, findings):
    (finding,) = [finding for finding in findings if finding.subject == subject]
    return finding


def test_this_installation_trains():
    findings = doctor.examine()
    assert not doctor.would_fail(findings), list(doctor.lines(findings))
    packages = of("packages", findings)
    for name in ("ray", "torch", "mujoco", "dm-control", "gymnasium"):
        assert f"{name} {importlib.metadata.version(name)}" in packages.message


@pytest.mark.parametrize(
    ("installed", "message"),
    [("3.2.0", "3.2.0, needed: <4,>=3.17"), ("4.0.0", "4.0.0, needed"), (None, "not installed")],
)
def test_a_wrong_or_missing_package_fails_with_the_line_that_mends_it(
    installed, message, monkeypatch
):
    versions = importlib.metadata.version

    def version(name):
        if name != "mujoco":
            return versions(name)
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    finding = of("mujoco", list(doctor.packages()))
    assert finding.status == FAILURE
    assert message in finding.message
    assert finding.fix == "pip install 'mujoco<4,>=3.17'"


def test_requirements_of_other_extras_are_left_out():
    names = {need.name for need in doctor.requirements("rllib-ezm", "")}
    assert {"ray", "torch"} <= names
    assert "pytest" not in names
    assert "pytest" in {need.name for need in doctor.requirements("rllib-ezm", "test")}
    assert doctor.plain(Requirement("ray[tune,rllib]>=2.60; python_version > '3'")) == (
        "ray[rllib,tune]>=2.60"
    )


def test_an_old_python_fails(monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.9.18")
    assert doctor.python_version().status == FAILURE


def test_a_pair_of_simulator_packages_that_does_not_work_fails(monkeypatch):
    from dm_control import suite

    def broken(*_):
        raise AttributeError("'MjModel' object has no attribute 'flex_vertedge'")

    monkeypatch.setattr(suite, "load", broken)
    finding = doctor.simulator()
    assert finding.status == FAILURE
    assert "flex_vertedge" in finding.message
    assert "'mujoco>=3.17,<4'" in finding.fix


@pytest.mark.parametrize(
    ("cause", "status"),
    [
        (None, OK),
        (ModuleNotFoundError("no such module", name="humanoid_bench"), NOTE),
        (AttributeError("'MjModel' object has no attribute 'flex_evpair'"), WARNING),
    ],
    ids=["usable", "absent", "broken"],
)
def test_humanoid_bench_is_optional(cause, status, monkeypatch):
    def import_humanoid_bench():
        if cause is not None:
            raise ImportError("cannot be used") from cause

    monkeypatch.setattr(humanoid_bench_import, "import_humanoid_bench", import_humanoid_bench)
    finding = doctor.humanoid_bench()
    assert finding.status == status
    assert finding.fix == (humanoid_bench_import.INSTALL if cause else "")


def test_shared_memory(tmp_path, monkeypatch):
    assert doctor.shared_memory(str(tmp_path / "absent")).status == WARNING
    monkeypatch.setattr(doctor, "SMALL_SHARED_MEMORY", 2**60)
    assert "shm-size" in doctor.shared_memory(str(tmp_path)).fix
    monkeypatch.setattr(doctor, "SMALL_SHARED_MEMORY", 1)
    assert doctor.shared_memory(str(tmp_path)).status == OK


def test_the_smaller_of_machine_and_container_is_the_memory(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(doctor, "CGROUP_LIMITS", (str(limit),))
    limit.write_text("max\n")
    machine = doctor.memory_bytes()
    limit.write_text("1048576\n")
    assert doctor.memory_bytes() == 1048576 < machine


@pytest.mark.parametrize(("needed", "status"), [(5, OK), (7, WARNING), (10, FAILURE)])
def test_replay_is_held_against_the_memory(needed, status):
    assert doctor.replay_memory(needed * 2**30, 10 * 2**30).status == status


def test_an_experiment_that_asks_for_too_much_replay_fails():
    file = load_experiment_file(EXAMPLE)
    assert not doctor.would_fail(list(doctor.experiment(file, 2**40)))
    assert doctor.would_fail(list(doctor.experiment(file, file.config.replay_bytes())))


def test_an_invalid_experiment_fails(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text(EXAMPLE.read_text() + "\nconfig.training(gamma=2.0)\n")
    (finding,) = doctor.experiment(load_experiment_file(file), 2**40)
    assert finding.status == FAILURE
    assert "gamma" in finding.message


def test_exit_codes(monkeypatch, capsys):
    assert main(["doctor", str(EXAMPLE)]) == 0
    printed = capsys.readouterr().out
    assert "ezm_quickstart.py: valid; one trial asks Ray for 1 CPU" in printed
    monkeypatch.setattr(doctor, "memory_bytes", lambda: 1)
    assert main(["doctor", str(EXAMPLE)]) == 1
    assert "lower capacity_per_task" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("runners", "cores", "status", "fix"),
    [(0, 1, OK, ""), (1, 1, OK, ""), (3, 4, OK, ""), (4, 4, WARNING, "num_env_runners=3")],
)
def test_env_runners_are_compared_with_the_cores(runners, cores, status, fix):
    finding = doctor.env_runners(runners, cores)
    assert finding.status == status
    assert fix in finding.fix
    assert bool(finding.fix) == bool(fix)


@pytest.mark.parametrize(("count", "status"), [(4, OK), (5, WARNING)])
def test_processes_of_environments_are_compared_with_the_cores(count, status):
    finding = doctor.env_processes(count, 4)
    assert finding.status == status
    assert ("at most 4" in finding.fix) == (status == WARNING)


def test_each_env_runner_has_its_processes(tmp_path):
    config = tiny_config([scripted_task(5)], num_env_processes=3)
    config.env_runners(num_env_runners=2)
    file = ExperimentFile(tmp_path / "experiment.py", config, None)
    finding = of("env processes", doctor.experiment(file, 10**12))
    assert finding.message.startswith("6, on ")


@pytest.mark.parametrize(
    ("count", "each", "gpus", "status", "fix"),
    [
        (0, 0, 0, OK, ""),
        (0, 1, 0, FAILURE, ".learners(num_learners=0, num_gpus_per_learner=0)"),
        (4, 1, 2, FAILURE, ".learners(num_learners=2, num_gpus_per_learner=1)"),
        (2, 0.5, 1, OK, ""),
        (0, 0, 1, NOTE, ".learners(num_gpus_per_learner=1)"),
    ],
)
def test_learners_are_compared_with_the_gpus(count, each, gpus, status, fix):
    finding = doctor.learners(count, each, gpus)
    assert finding.status == status
    assert fix in finding.fix


def test_a_file_that_asks_for_more_than_is_here_says_so(tmp_path, monkeypatch, capsys):
    path = tmp_path / "large.py"
    path.write_text(
        EXAMPLE.read_text()
        + "\nconfig.env_runners(num_env_runners=64).learners(num_gpus_per_learner=1)\n"
    )
    monkeypatch.setattr(doctor, "num_cores", lambda: 8)
    monkeypatch.setattr(doctor, "num_gpus", lambda: 0)
    # Without the cluster that other tests have left running, which would be asked instead.
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert main(["doctor", str(path)]) == 1
    out = capsys.readouterr().out
    assert "warning env runners: 64, on 8 cores" in out
    assert "failure learners: 1, with 1 GPUs in all, of 0 here" in out
