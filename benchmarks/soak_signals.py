"""A long run that is ended again and again by signals and kills, and resumed each time.

Each life of the run is `rllib train file FILE`, the first one new and all others with `--resume`.
At a random time after its first new result it gets one of

    SIGINT, SIGTERM, SIGHUP    Ctrl-C, a cluster's preemption, a closed terminal: saves and ends
    SIGKILL                    of the command: nothing can be saved
    trial                      SIGKILL of the process that trains: the command reports it

Afterwards all of this has to hold, or the exit code is 1:

    the exit code is the one of the end (130, 143, 129, -9, 1)
    checkpoints that are there are whole, and none is older than before
    after SIGINT, SIGTERM and SIGHUP the newest one holds the last result that was reported
    the next life goes on at the iteration after the newest one, with its counts of env steps and
    updates, and keeps the lines of earlier results
    no process of the life is left: at most ten seconds later, or two minutes after a kill, which
    Ray's own agents take to notice

    python benchmarks/soak_signals.py tuned_examples/ezm_dmc.py [--minutes 60] [--csv FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rllib_ezm.utils.checkpoint_folder import verify
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.trial_folder import checkpoints, read_result

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGKILL": -9, "trial": 1}
"""Way to end -> expected exit code of the command."""

SAVING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ways to end that leave time to save."""

COUNTERS = ("num_env_steps_sampled_lifetime", "num_updates_lifetime")
LONGEST_START, LONGEST_END, LONGEST_LEFT = 240.0, 240.0, 120.0
"""Seconds for the first result of a life, from the signal to its end, for its processes to go."""


@dataclass
class Life:
    """One process of the command, with its own folder for Ray, by which its workers are found."""

    process: subprocess.Popen[bytes]
    log: Path
    ray_folder: Path

    @classmethod
    def start(cls, arguments: list[str], log: Path) -> Life:
        ray_folder = Path(tempfile.mkdtemp(prefix="soak", dir="/tmp"))  # short: holds sockets
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("rllib")), "train", "file", *arguments],
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
            env={**os.environ, "RAY_TMPDIR": str(ray_folder), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        return cls(process, log, ray_folder)

    def processes(self) -> dict[int, str]:
        """Living processes that have a file of this life's Ray open -> their command lines."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                links = [os.readlink(link) for link in (folder / "fd").iterdir()]
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:  # it has gone, or belongs to somebody else
                continue
            mine = any(link.startswith(str(self.ray_folder)) for link in links)
            if (mine or str(self.ray_folder) in line) and int(folder.name) != self.process.pid:
                found[int(folder.name)] = line
        return found

    def trainer(self) -> int | None:
        """The process of the trial; None where there is none."""
        lines = self.processes().items()
        return next((pid for pid, line in lines if line.startswith("ray::EZM")), None)

    def end(self, way: str) -> int:
        """End it, and return its exit code."""
        if way == "trial":
            pid = self.trainer()
            if pid is None:
                raise RuntimeError(f"no process of the trial among {self.processes()}")
            os.kill(pid, signal.SIGKILL)
        else:
            self.process.send_signal(signal.Signals[way])
        return self.process.wait(timeout=LONGEST_END)

    def left_over(self) -> tuple[dict[int, str], float]:
        """Processes that are still there when they have had their time to go; seconds waited."""
        start = time.monotonic()
        while (left := self.processes()) and time.monotonic() - start < LONGEST_LEFT:
            time.sleep(1)
        return left, time.monotonic() - start


def results_of(trial_folder: Path) -> list[dict[str, Any]]:
    """The results that were reported so far, over all lives; a line cut by a kill is left out."""
    results = []
    for file in sorted(trial_folder.glob("result*.json")):
        for line in file.read_text().splitlines():
            try:
                results.append(json.loads(line))
            except ValueError:
                continue
    return results


def trial_folder_of(folder: Path) -> Path | None:
    return next((path.parent for path in folder.glob("*/result.json")), None)


def wait_for_result(folder: Path, life: Life, already: int) -> None:
    end = time.monotonic() + LONGEST_START
    while time.monotonic() < end:
        trial_folder = trial_folder_of(folder)
        if trial_folder is not None and len(results_of(trial_folder)) > already:
            return
        if life.process.poll() is not None:
            break
        time.sleep(0.5)
    raise RuntimeError(f"no result:\n{life.log.read_text()[-3000:]}")


def whole_checkpoints(trial_folder: Path) -> tuple[list[Path], list[str]]:
    """The whole ones, the oldest first, and what is wrong with the others."""
    whole, flaws = [], []
    for checkpoint in checkpoints(trial_folder):
        try:
            verify(checkpoint)
        except UserError as error:
            flaws.append(str(error))
            continue
        whole.append(checkpoint)
    return whole, flaws


def continues(checkpoint: dict[str, Any], first: dict[str, Any]) -> list[str]:
    """What does not fit between a checkpoint's numbers and the first result of the next life."""
    flaws = []
    if first["training_iteration"] != checkpoint["training_iteration"] + 1:
        flaws.append(
            f"iteration {first['training_iteration']} after {checkpoint['training_iteration']}"
        )
    if first["time_total_s"] <= checkpoint["time_total_s"]:
        flaws.append("time_total_s began anew")
    for name in COUNTERS:
        if not first[name] > checkpoint[name]:
            flaws.append(f"{name} is {first[name]} after {checkpoint[name]}")
    return flaws


def live(options: argparse.Namespace, folder: Path, way: str, pause: float) -> dict[str, Any]:
    """One life of the run, and what it left behind."""
    known = trial_folder_of(folder)
    before = [] if known is None else results_of(known)
    start_from = {} if known is None else read_result(whole_checkpoints(known)[0][-1])
    new = ["--local-dir", str(folder.parent), "-n", folder.name]
    new += [
        "--checkpoint-minutes",
        str(options.checkpoint_minutes),
        "--stop",
        '{"time_total_s":1e9}',
    ]
    log = folder.parent / f"life_{len(list(folder.parent.glob('life_*'))) + 1}.log"
    life = Life.start(
        [str(options.file), *(new if known is None else ["--resume", str(folder)])], log
    )
    try:
        wait_for_result(folder, life, len(before))
        time.sleep(pause)
        asked = time.monotonic()
        code = life.end(way)
        seconds_to_end = time.monotonic() - asked
    except BaseException:
        life.process.kill()
        raise
    trial_folder = trial_folder_of(folder)
    assert trial_folder is not None
    results = results_of(trial_folder)
    mine = results[len(before) :]
    whole, flaws = whole_checkpoints(trial_folder)
    newest = read_result(whole[-1]) if whole else {}
    if code != EXIT_CODES[way]:
        flaws.append(f"exit code {code}")
    if results[: len(before)] != before:
        flaws.append("earlier results have changed")
    if start_from:
        flaws += continues(start_from, mine[0])
    at = newest.get("training_iteration", 0)
    lost = mine[-1]["training_iteration"] - at
    if way in SAVING and lost != 0:
        flaws.append(f"{lost} iterations lost")
    if start_from and at < start_from["training_iteration"]:
        flaws.append("the newest checkpoint is older than the one before")
    left, seconds_to_go = life.left_over()
    if left or (way != "SIGKILL" and seconds_to_go > 10.0):
        flaws.append(f"processes were there for {seconds_to_go:.0f} s, and at the end: {left}")
    return {
        "way": way,
        "exit_code": code,
        "started_after": start_from.get("training_iteration", 0),
        "first_iteration": mine[0]["training_iteration"],
        "last_iteration": mine[-1]["training_iteration"],
        "newest_checkpoint": at,
        "iterations_lost": lost,
        "env_steps": mine[-1][COUNTERS[0]],
        "updates": mine[-1][COUNTERS[1]],
        "checkpoints": len(whole),
        "seconds_to_end": round(seconds_to_end, 1),
        "seconds_until_no_process": round(seconds_to_go, 1),
        "ok": not flaws,
        "flaws": "; ".join(flaws),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--checkpoint-minutes", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0, help="of the ways and times to end it")
    parser.add_argument("--folder", type=Path, help="default: a new one under the temporary folder")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    options.file = options.file.resolve()
    parent = options.folder or Path(tempfile.mkdtemp(prefix="soak_signals_"))
    parent.mkdir(parents=True, exist_ok=True)
    choose = random.Random(options.seed)
    start, rows = time.perf_counter(), []
    ways: list[str] = []
    while (minutes := (time.perf_counter() - start) / 60) < options.minutes:
        if not ways:  # each way comes once before any comes again
            ways = list(EXIT_CODES)
            choose.shuffle(ways)
            if not rows:  # the first life needs a checkpoint to go on from
                ways.sort(key=lambda way: way in SAVING)
        row = live(options, parent / "run", ways.pop(), choose.uniform(20.0, 90.0))
        rows.append({"life": len(rows) + 1, "minutes": round(minutes, 1), **row})
        print(rows[-1], flush=True)
        if options.csv is not None:
            options.csv.parent.mkdir(parents=True, exist_ok=True)
            with options.csv.open("w", newline="") as stream:
                writer = csv.DictWriter(stream, rows[0])
                writer.writeheader()
                writer.writerows(rows)
    ok = all(row["ok"] for row in rows)
    print(f"lives={len(rows)} ok={ok} iterations_lost={[row['iterations_lost'] for row in rows]}")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
