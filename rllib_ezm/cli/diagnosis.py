"""Whether this machine can train, and what to fix: `rllib-ezm doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from rllib_ezm.utils.errors import UserError

if TYPE_CHECKING:
    from rllib_ezm.cli.experiment_file import ExperimentFile

PACKAGE = "rllib-ezm"
OK, NOTE, WARNING, FAILURE = "ok", "note", "warning", "failure"
COLORS = {OK: "green", NOTE: "cyan", WARNING: "yellow", FAILURE: "red"}
SMALL_SHARED_MEMORY = 2 * 2**30
"""Bytes of /dev/shm below which Ray's object store is likely to spill."""

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What.
        status: "ok", "note", "warning" (training runs, but ...) or "failure" (it would not).
        message: What was found.
        fix: How to fix it; empty where there is nothing to do.
    """

    subject: str
    status: str
    message: str
    fix: str = ""


def examine(file: ExperimentFile | None = None) -> list[Finding]:
    """Look at the installation and the machine, and at an experiment file if one is given."""
    findings = [
        python_version(),
        *packages(),
        simulator(),
        humanoid_bench(),
        gpu(),
        shared_memory(),
    ]
    if file is not None:
        findings += experiment(file, memory_bytes())
    return findings


def would_fail(findings: list[Finding]) -> bool:
    """Whether any finding keeps training from running."""
    return any(finding.status == FAILURE for finding in findings)


def lines(findings: list[Finding]) -> Iterator[tuple[str, str]]:
    """What to print: text and color of each line; the fix of a finding stands below it."""
    for finding in findings:
        color = COLORS[finding.status]
        yield f"{finding.status:<8}{finding.subject}: {finding.message}", color
        for fix in finding.fix.splitlines():
            yield f"          {fix}", ""


def python_version() -> Finding:
    """The interpreter against the package's range."""
    version = platform.python_version()
    wanted = importlib.metadata.metadata(PACKAGE)["Requires-Python"]
    if SpecifierSet(wanted).contains(version):
        return Finding("Python", OK, version)
    return Finding("Python", FAILURE, f"{version}, needed: {wanted}", "python3.11 -m venv .venv")


def packages() -> Iterator[Finding]:
    """Our own requirements, and Ray's exact pin of Gymnasium, against what is installed."""
    wanted = requirements(PACKAGE, "")
    wanted += [need for need in requirements("ray", "rllib") if need.name == "gymnasium"]
    fitting = {}
    for need in wanted:
        try:
            version = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(need.name, FAILURE, "not installed", f"pip install '{plain(need)}'")
            continue
        if need.specifier.contains(version, prereleases=True):
            fitting[need.name] = version
        else:
            found = f"{version}, needed: {need.specifier}"
            yield Finding(need.name, FAILURE, found, f"pip install '{plain(need)}'")
    yield Finding("packages", OK, ", ".join(f"{name} {at}" for name, at in fitting.items()))


def requirements(package: str, extra: str) -> list[Requirement]:
    """What a package asks for on this platform, with one of its extras ("" for none)."""
    needs = map(Requirement, importlib.metadata.requires(package) or ())
    return [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]


def plain(need: Requirement) -> str:
    """A requirement as pip takes it, without its marker."""
    extras = f"[{','.join(sorted(need.extras))}]" if need.extras else ""
    return f"{need.name}{extras}{need.specifier}"


def simulator() -> Finding:
    """Whether dm_control and MuJoCo fit together: many pairs that pip allows do not."""
    try:
        from dm_control import suite

        suite.load("cartpole", "balance").reset()
    except (ImportError, AttributeError, RuntimeError, TypeError) as error:
        fix = (
            "pip uninstall -y mujoco mujoco-core mujoco-studio\n"
            "pip install 'mujoco>=3.17,<4' 'dm-control>=1.0.50'"
        )
        return Finding("dm_control with MuJoCo", FAILURE, f"{type(error).__name__}: {error}", fix)
    return Finding("dm_control with MuJoCo", OK, "a task loads and resets")


def humanoid_bench() -> Finding:
    """HumanoidBench is optional: absent is a note, broken a warning."""
    from rllib_ezm.tasks.humanoid_bench_import import INSTALL, import_humanoid_bench

    try:
        import_humanoid_bench()
    except ImportError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name == "humanoid_bench":
            return Finding("HumanoidBench", NOTE, "not installed; hb: tasks need it", INSTALL)
        return Finding("HumanoidBench", WARNING, f"unusable: {cause}", INSTALL)
    return Finding("HumanoidBench", OK, "importable")


def gpu() -> Finding:
    """CUDA devices; a CPU trains the small examples only."""
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", OK, torch.cuda.get_device_name(0), "")
    found = f"no CUDA device (torch {torch.__version__}): enough for the walkers and the quickstart"
    return Finding("GPU", NOTE, found, "for full-size examples: a GPU and a CUDA build of torch")


def shared_memory(path: str = "/dev/shm") -> Finding:
    """Ray keeps its objects in shared memory."""
    if not os.path.isdir(path):
        return Finding(
            path, WARNING, "absent: Ray keeps its objects on disk", "mount a tmpfs there"
        )
    status = os.statvfs(path)
    size = status.f_frsize * status.f_blocks
    found = f"{size / 2**30:.1f} GiB"
    if size < SMALL_SHARED_MEMORY:
        fix = "in a container: docker run --shm-size=8g"
        return Finding(path, WARNING, f"{found}: Ray keeps its objects on disk", fix)
    return Finding(path, OK, found)


def memory_bytes() -> int:
    """Memory that processes here may use: that of the machine, or of the container if less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in CGROUP_LIMITS:
        file = Path(name)
        if file.is_file() and (text := file.read_text().strip()).isdigit():
            limits.append(int(text))
    return min(limits)


def experiment(file: ExperimentFile, memory: int) -> Iterator[Finding]:
    """The file's config: valid, placed on this machine, and its replay against the memory.

    Args:
        file: The experiment file.
        memory: Bytes that processes may use.
    """
    from rllib_ezm.algorithm.config import EZMConfig
    from rllib_ezm.cli.cluster import trial_resources

    try:
        needs = trial_resources(file)
    except (UserError, ImportError) as error:
        yield Finding(file.path.name, FAILURE, str(error), "see the message")
        return
    asks = ", ".join(f"{amount:g} {name}" for name, amount in sorted(needs.items()))
    yield Finding(file.path.name, OK, f"valid; one trial asks Ray for {asks}")
    config = file.config
    if isinstance(config.num_env_runners, int):  # not a search space
        yield env_runners(config.num_env_runners, num_cores())
        processes = config.env_config.get("num_env_processes", 0)
        if isinstance(processes, int) and processes:
            yield env_processes(max(config.num_env_runners, 1) * processes, num_cores())
    if isinstance(config.num_learners, int) and not isinstance(config.num_gpus_per_learner, dict):
        yield learners(config.num_learners, config.num_gpus_per_learner, num_gpus())
    if isinstance(file.config, EZMConfig):
        config = file.config
        yield replay_memory(config.replay_bytes() - config.replay_bytes_on_gpu(), memory)


def num_cores() -> int:
    """Cores that processes here may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_gpus() -> int:
    """CUDA devices that torch sees."""
    import torch

    return torch.cuda.device_count()


def env_runners(runners: int, cores: int) -> Finding:
    """Processes that collect, against the cores of this machine; the learner needs one as well."""
    found = f"{runners or 'none of their own'}, on {cores} core{'s' if cores > 1 else ''}"
    if runners >= max(cores, 2):
        fix = f"num_env_runners={max(cores - 1, 1)} leaves a core to the learner; more of them wait"
        return Finding("env runners", WARNING, found, fix)
    return Finding("env runners", OK, found)


def env_processes(processes: int, cores: int) -> Finding:
    """Processes of environments, which all step at once, against the cores of this machine."""
    found = f"{processes}, on {cores} core{'s' if cores > 1 else ''}"
    if processes > cores:
        fix = f"num_env_processes of .tasks(...) so that there are at most {cores} in all"
        return Finding("env processes", WARNING, found, fix)
    return Finding("env processes", OK, found)


def learners(count: int, gpus_each: float, gpus: int) -> Finding:
    """The GPUs that the learners ask for, against those of this machine.

    Args:
        count: `num_learners`; 0 is one in the process of the algorithm.
        gpus_each: `num_gpus_per_learner`.
        gpus: What is here.
    """
    wanted = gpus_each * max(count, 1)
    found = f"{max(count, 1)}, with {wanted:g} GPUs in all, of {gpus} here"
    if wanted > gpus:
        fix = f"set .learners(num_learners={min(count, gpus)}, num_gpus_per_learner={min(gpus, 1)})"
        return Finding("learners", FAILURE, found, f"{fix}, or name a cluster with --ray-address")
    if gpus and not wanted:
        return Finding("learners", NOTE, found, "to use one: .learners(num_gpus_per_learner=1)")
    return Finding("learners", OK, found)


def replay_memory(needed: int, memory: int) -> Finding:
    """The full replay buffer [bytes] against the memory [bytes]."""
    found = f"{needed / 2**30:.1f} GiB when full, of {memory / 2**30:.1f} GiB memory"
    fix = "lower capacity_per_task; memory is taken as the buffer fills"
    if needed > 0.9 * memory:
        return Finding("replay buffer", FAILURE, found, fix)
    if needed > 0.6 * memory:
        return Finding("replay buffer", WARNING, found, fix)
    return Finding("replay buffer", OK, found)
