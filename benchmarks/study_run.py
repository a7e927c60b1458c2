"""One run of a study: a variant and a seed, trained and evaluated by our commands in processes.

A run has a folder of its own with `state.json` (how far it is), `cpu.csv` (CPU and wall-clock
seconds over all lives, a line per second), `commands.log` (what the commands print) and an
`evaluation_FRACTION.json` for each evaluation. Tune's files are in the folder of its experiment.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from process_tree import CpuMeter, read_process
from study_file import Study, TaskScale

from rllib_ezm.utils.checkpoint_folder import verify
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.trial_folder import checkpoints, read_result

COMMAND = str(Path(sys.executable).with_name("rllib"))
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
LONGEST_SAVE_S = 300.0
"""From the signal to save to the end of the command; it is killed then."""

MOST_KILLS = 3
"""Lives that may be killed from outside before a run counts as failed."""

PROCESS_FILE = "process.json"
"""Process id, start, and seconds before it of the life under way."""

UPDATES = "num_updates_lifetime"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def write_json(file: Path, value: Any) -> None:
    """Write a file that is there as a whole or not at all."""
    temporary = file.with_name(f".{file.name}.partial")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(temporary, file)


def cut_last_line(file: Path) -> None:
    """Drop a line that a killed process has not finished: the next one would be joined to it."""
    content = file.read_bytes() if file.is_file() else b""
    if content and not content.endswith(b"\n"):
        file.write_bytes(content[: content.rfind(b"\n") + 1])


def _save_when_the_study_dies() -> None:
    """In the new process: SIGTERM, at which our command saves, when its parent has gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class State:
    """How far a run is.

    Attributes:
        trained: Fraction of the budget that it has been trained for.
        evaluated: Fraction of the budget after which it was last evaluated.
        lives: How often its training was started.
        kills: Lives that were killed from outside since it was last evaluated.
        failure: Why it failed; empty if it did not.
        commits: Commits it was trained with.
    """

    trained: float = 0.0
    evaluated: float = 0.0
    lives: int = 0
    kills: int = 0
    failure: str = ""
    commits: tuple[str, ...] = ()


class Run:
    """A run and its files.

    Args:
        study: Its study.
        base: The experiment file.
        out: The folder of the study.
        variant: Its variant.
        seed: Its seed.
        tasks: Its tasks.
    """

    def __init__(
        self,
        study: Study,
        base: Path,
        out: Path,
        variant: str,
        seed: int,
        tasks: Sequence[TaskScale],
    ) -> None:
        self.study, self.base, self.variant, self.seed = study, base, variant, seed
        self.tasks = tasks
        self.name = f"{variant}_seed{seed}"
        self.folder = out / "runs" / self.name
        self.experiment = out / "tune" / self.name
        self.log = self.folder / "commands.log"
        self.state = self._read_state()

    def _read_state(self) -> State:
        file = self.folder / "state.json"
        if not file.is_file():
            return State()
        values = json.loads(file.read_text())
        return State(**{**values, "commits": tuple(values["commits"])})

    def keep_state(self) -> None:
        """Write `state.json`."""
        write_json(self.folder / "state.json", asdict(self.state))

    def prepare(self) -> None:
        """Make its folder, or refuse one that was begun with other settings or another budget.

        Raises:
            UserError: If its settings or its budget have changed since.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        cut_last_line(self.folder / "cpu.csv")
        file = self.folder / "settings.json"
        study = self.study
        settings = {
            "base": self.base.name,
            "settings": study.settings_of(self.variant),
            "cpu_seconds": study.cpu_seconds,
            "decisions": study.decisions,
        }
        before = json.loads(file.read_text()) if file.is_file() else {}
        if before != {name: settings.get(name) for name in before}:
            raise UserError(
                f"{self.name} was begun with {before}, the study file says {settings}: give the "
                "variant another name, or the study another --out"
            )
        write_json(file, settings)

    @property
    def used(self) -> tuple[float, float]:
        """CPU and wall-clock seconds of its training over all lives."""
        log = self.cpu_log()
        return (log[-1][1], log[-1][2]) if log else (0.0, 0.0)

    def cpu_log(self) -> list[tuple[float, float, float]]:
        """Unix time, CPU seconds, wall-clock seconds, a line per reading."""
        file = self.folder / "cpu.csv"
        if not file.is_file():
            return []
        readings = (line.split(",") for line in file.read_text().splitlines())
        return [(float(unix), float(cpu), float(wall)) for unix, cpu, wall in readings]

    def log_cpu(self, cpu_s: float, wall_s: float) -> None:
        """Add a reading to `cpu.csv`."""
        with (self.folder / "cpu.csv").open("a") as stream:
            stream.write(f"{time.time():.2f},{cpu_s:.2f},{wall_s:.2f}\n")

    def trial_folder(self) -> Path | None:
        """The folder of its trial; None before there is one."""
        return next((path.parent for path in self.experiment.glob("*/params.json")), None)

    def newest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint; None if there is none."""
        trial_folder = self.trial_folder()
        for checkpoint in reversed(checkpoints(trial_folder) if trial_folder else []):
            try:
                verify(checkpoint)
            except (UserError, OSError):
                continue
            return checkpoint
        return None

    def position(self) -> dict[str, Any]:
        """Updates and decisions of each task at the newest checkpoint."""
        checkpoint = self.newest_checkpoint()
        result = {} if checkpoint is None else read_result(checkpoint)
        total = result.get("num_env_steps_sampled_lifetime", 0)
        share = total / len(self.tasks)
        decisions = {
            task.name: result.get(f"tasks/{task.name}/env_steps", share) for task in self.tasks
        }
        return {"updates": result.get(UPDATES, 0), "decisions": decisions}

    def evaluations(self) -> list[dict[str, Any]]:
        """The evaluations of its checkpoints, in order of the budget."""
        files = self.folder.glob("evaluation_*.json")
        return sorted((json.loads(f.read_text()) for f in files), key=lambda e: e["fraction"])

    def evaluation_at(self, fraction: float) -> dict[str, Any] | None:
        """The evaluation after a fraction of the budget; None if there is none."""
        return next((e for e in self.evaluations() if e["fraction"] == fraction), None)

    def train_arguments(self, fraction: float) -> list[str]:
        """Of `rllib train file`, for a first life or a further one."""
        stop = {"time_total_s": 1e9}
        if self.study.decisions is not None:
            total = fraction * self.study.decisions * len(self.tasks)
            stop = {"num_env_steps_sampled_lifetime": int(total)}
        common = ["train", "file", str(self.base), "--stop", json.dumps(stop)]
        common += ["--checkpoint-minutes", str(self.study.checkpoint_minutes), "--keep", "1"]
        if self._can_resume():
            return [*common, "--resume", str(self.experiment)]
        _remove(self.experiment)
        first = ["--local-dir", str(self.experiment.parent), "-n", self.experiment.name]
        settings = [
            text for setting in self.study.settings_of(self.variant) for text in ("--set", setting)
        ]
        return [*common, *first, "--seed", str(self.seed), *settings]

    def _can_resume(self) -> bool:
        if not self.experiment.exists():
            return False
        from rllib_ezm.cli.experiment import kept_options

        try:
            kept_options(self.experiment)
        except UserError:
            return False  # killed before Tune's first notes
        return self.trial_folder() is not None


def _remove(folder: Path) -> None:
    """Put what a life without notes has left aside."""
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}.unusable.{time.time_ns()}"))


class Life:
    """A command in a process of its own, with its CPU seconds added to its run's.

    Args:
        run: Its run.
        arguments: Of the command `rllib`.
        counts: Whether its seconds count against the budget, as those of training.
    """

    def __init__(self, run: Run, arguments: Sequence[str], *, counts: bool) -> None:
        self._run, self._counts = run, counts
        self._offset = run.log.stat().st_size if run.log.is_file() else 0
        with run.log.open("ab") as log:
            self.process = subprocess.Popen(
                [COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ONE_THREAD, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                preexec_fn=_save_when_the_study_dies,
            )
        self._meter = CpuMeter(self.process.pid)
        self._started = time.monotonic()
        self._before = run.used
        self._told_to_stop_at: float | None = None
        self.cpu_s, self.wall_s = self._before
        process = read_process(self.process.pid)
        if counts and process is not None:
            write_json(run.folder / PROCESS_FILE, [*process.key, *self._before])

    def read(self) -> None:
        """Measure, and keep what was measured."""
        if not self._counts:
            return
        self.cpu_s = self._before[0] + self._meter.read()
        self.wall_s = self._before[1] + time.monotonic() - self._started
        self._run.log_cpu(self.cpu_s, self.wall_s)

    def stop(self) -> None:
        """Ask it to save and end; kill it if that takes too long."""
        now = time.monotonic()
        if self._told_to_stop_at is None:
            self._told_to_stop_at = now
            self.process.terminate()
        elif now - self._told_to_stop_at > LONGEST_SAVE_S:
            self.process.kill()

    @property
    def was_told_to_stop(self) -> bool:
        """Whether `stop` was called."""
        return self._told_to_stop_at is not None

    def last_line(self) -> str:
        """The last line that it printed."""
        with self._run.log.open("rb") as log:
            log.seek(self._offset)
            lines = log.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it printed nothing"


def end_earlier_life(run: Run) -> None:
    """Let a life that has outlived its study save and end, and count what it has used."""
    file = run.folder / PROCESS_FILE
    if not file.is_file():
        return
    pid, ticks, cpu_before, wall_before = json.loads(file.read_text())
    meter, started = CpuMeter(pid), time.monotonic()
    signum = signal.SIGTERM
    if read_process(pid) is not None:
        print(f"{run.name}: an earlier life is there: it is waited for.", flush=True)
    while (process := read_process(pid)) is not None and process.key == (pid, ticks):
        cpu_s, wall_s = run.used
        waited = time.monotonic() - started
        run.log_cpu(max(cpu_s, cpu_before + meter.read()), max(wall_s, wall_before) + 1.0)
        if waited > LONGEST_SAVE_S:
            signum = signal.SIGKILL
        os.kill(pid, signum)
        time.sleep(1.0)
    file.unlink()


def describe(position: Mapping[str, Any]) -> str:
    """Where a run is, for a line of progress."""
    decisions = position["decisions"].values()
    mean = sum(decisions) / max(len(decisions), 1)
    return f"{mean:,.0f} decisions a task, {position['updates']:,} updates"
