"""A study of settings: every variant with every seed, at equal CPU seconds, from one command.

    python benchmarks/study.py benchmarks/studies/development_walkers.py --cores 2 [--out DIR]

Run the same command again after anything that has ended it (Ctrl-C, kill -9, a power cut): every
run goes on from its newest checkpoint, and its CPU seconds count on. In the background:

    nohup python benchmarks/study.py STUDY.py --cores 2 > study.log 2>&1 &

Each run is `rllib train file BASE --set ...` in a process of its own, with one thread per process
and as many runs at once as there are `--cores`. It is stopped by SIGTERM, at which it saves, when
its process tree has used its budget; then `rllib evaluate` plays its last checkpoint. In the folder
of the study: `table.md`, `curves.csv`, `summary.json`, `halving.json`, and a folder for each run.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from study_file import Study, check_settings, load_study
from study_halving import decision_at, read_decisions
from study_job import Job
from study_run import Run, describe, end_earlier_life
from study_table import TABLE_FILE, write_results

from rllib_ezm.report import require_extra
from rllib_ezm.utils.errors import UserError

POLL_S = 1.0
"""Seconds between two readings of the CPU seconds."""


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"[{time.strftime('%m-%d %H:%M:%S')}] {text}", flush=True)


class Signals:
    """The first signal that asks the study to end; 0 before it."""

    def __init__(self) -> None:
        self.received = 0
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(signum, self._note)

    def _note(self, signum: int, frame: Any) -> None:
        if not self.received:
            say(f"{signal.Signals(signum).name}: saving what runs, then ending.")
        self.received = signum


class Campaign:
    """A study under way.

    Args:
        study: The study.
        runs: Its runs that are to be made.
        options: Of the command line.
        signals: What may end it.
    """

    def __init__(
        self, study: Study, runs: Sequence[Run], options: argparse.Namespace, signals: Signals
    ) -> None:
        self._study, self._runs, self._options, self._signals = study, runs, options, signals
        self._said_at = 0.0

    def go(self) -> None:
        """All rungs, one after the other; returns early after a signal."""
        halved = bool(self._study.halving) and not self._options.only
        active = list(self._runs)
        for rung in self._study.rungs if halved else (1.0,):
            self._bring_to(rung, active)
            if self._signals.received:
                return
            if rung < 1.0:
                decision = decision_at(self._options.out, active, rung)
                say(f"After {rung:.0%} of the budget, dropped: {', '.join(decision.dropped)}")
                active = [run for run in active if run.variant not in decision.dropped]
                self.write()

    def _bring_to(self, rung: float, runs: Sequence[Run]) -> None:
        waiting = [job for job in (Job(run, rung) for run in runs) if not job.over]
        running: list[Job] = []
        while waiting or running:
            ending = bool(self._signals.received)
            if ending:
                waiting = []
            while waiting and len(running) < self._options.cores:
                running.append(waiting.pop(0))
                say(f"{running[-1].run.name}: on its way to {rung:.0%} of the budget")
            for job in running:
                job.poll(ending=ending)
            over = [job for job in running if job.over or (ending and job.life is None)]
            running = [job for job in running if job not in over]
            for job in over:
                self._say_end(job)
            if over:
                self.write()
            self._say_progress(running, len(waiting), rung)
            if running:
                time.sleep(POLL_S)

    def _say_end(self, job: Job) -> None:
        run = job.run
        evaluation = run.evaluation_at(job.fraction)
        if run.state.failure:
            say(f"{run.name}: FAILED: {run.state.failure} (see {run.log})")
        elif evaluation is not None:
            cpu_s, wall_s = run.used
            say(
                f"{run.name}: score {evaluation['score']:.3f} after {cpu_s:,.0f} CPU s, "
                f"{wall_s:,.0f} s, {describe(run.position())}"
            )

    def _say_progress(self, running: Sequence[Job], waiting: int, rung: float) -> None:
        if not running or time.monotonic() - self._said_at < self._options.progress:
            return
        self._said_at = time.monotonic()
        for job in running:
            cpu_s, wall_s = job.run.used
            budget = self._study.cpu_seconds
            of = "" if budget is None else f" of {rung * budget:,.0f}"
            doing = "training" if job.run.state.trained < rung else "evaluating"
            say(
                f"{job.run.name}: {doing}, {cpu_s:,.0f}{of} CPU s, {wall_s:,.0f} s; last saved at "
                f"{describe(job.run.position())}; {waiting} more wait"
            )

    def write(self) -> None:
        """Write curves and table of what is there."""
        options = self._options
        write_results(
            options.out,
            self._study,
            all_runs(self._study, options),
            read_decisions(options.out),
            title=f"Study {options.file.stem}",
            machine=options.machine,
        )


def all_runs(study: Study, options: argparse.Namespace) -> list[Run]:
    """Every run of the study: all variants with the first seed, then with the next."""
    return [
        Run(study, options.base, options.out, variant, seed, options.tasks[variant])
        for seed in study.seeds
        for variant in study.variants
    ]


def machine_name() -> str:
    """The CPU's name and the number of its cores that this process may use."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else 'unknown CPU'}, {len(os.sched_getaffinity(0))} cores"


def list_runs(study: Study, options: argparse.Namespace) -> None:
    """Print variants with their settings, and how far each run is."""
    for variant, settings in study.variants.items():
        print(f"{variant}: {' '.join(settings) or '(as the base)'}")
        for seed in study.seeds:
            run = Run(study, options.base, options.out, variant, seed, ())
            state = run.state
            status = f"FAILED: {state.failure}" if state.failure else f"{state.evaluated:.0%} done"
            print(f"    seed {seed}: {status}, {run.used[0]:,.0f} CPU s, {state.lives} lives")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a study file, see benchmarks/studies")
    parser.add_argument("--cores", type=int, default=1, help="runs at once (default: 1)")
    parser.add_argument("--out", type=Path, help="default: ~/ray_results/studies/NAME_OF_FILE")
    parser.add_argument(
        "--only", metavar="VARIANT[,..]", help="these alone, to the end of the budget: no halving"
    )
    parser.add_argument("--list", action="store_true", help="print the runs, and end")
    parser.add_argument("--retry-failed", action="store_true", help="go on with failed runs too")
    parser.add_argument("--frozen", action="store_true", help="confirm that settings are frozen")
    parser.add_argument("--cpu-seconds", type=float, help="another budget of a run, e.g. to try")
    parser.add_argument("--progress", type=float, default=60.0, help="seconds between its lines")
    parser.add_argument("--machine", default=machine_name(), help="its name in the table")
    return parser.parse_args()


def chosen(study: Study, only: str | None) -> list[str]:
    """The variants that `--only` names; all without it."""
    names = list(study.variants) if only is None else only.split(",")
    unknown = [name for name in names if name not in study.variants]
    if unknown:
        there = ", ".join(study.variants)
        raise UserError(f"--only: no variant {', '.join(unknown)}; there are {there}")
    return names


def main() -> int:
    """Run the study; returns the exit code: 1 if a run failed, 128 + a signal's number."""
    options = parse_arguments()
    options.file = options.file.expanduser().resolve()
    study = load_study(options.file)
    options.base = (options.file.parent / study.base).resolve()
    default = Path("~/ray_results/studies") / options.file.stem
    options.out = (options.out or default).expanduser().resolve()
    if options.cores < 1:
        raise UserError(f"--cores must be 1 or more, got {options.cores}")
    if options.cpu_seconds is not None:
        study = replace(study, cpu_seconds=options.cpu_seconds)
    names = chosen(study, options.only)
    if options.list:
        list_runs(study, options)
        return 0
    if study.frozen and not options.frozen:
        raise UserError(
            f"{options.file.name} is run once, with settings that were chosen on the development "
            "tasks and are not changed afterwards: confirm it with --frozen"
        )
    require_extra()
    options.tasks = check_settings(options.base, study, list(study.variants))
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another process works on the study in {options.out}") from None
        runs = [run for run in all_runs(study, options) if run.variant in names]
        return run_study(study, runs, options)


def run_study(study: Study, runs: Sequence[Run], options: argparse.Namespace) -> int:
    """Make these runs of a study; returns the exit code of `main`."""
    signals = Signals()
    say(f"{len(runs)} runs, {options.cores} at once. Results: {options.out}")
    for run in runs:
        run.prepare()
        end_earlier_life(run)
        if options.retry_failed and run.state.failure:
            run.state.failure, run.state.kills = "", 0
            run.keep_state()
    campaign = Campaign(study, runs, options, signals)
    campaign.go()
    campaign.write()
    print((options.out / TABLE_FILE).read_text(), flush=True)
    if signals.received:
        say("Run the same command again to go on.")
        return 128 + signals.received
    failed = [run.name for run in all_runs(study, options) if run.state.failure]
    if failed:
        say(f"Failed: {', '.join(failed)}; --retry-failed goes on with them.")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"study.py: error: {error}")
