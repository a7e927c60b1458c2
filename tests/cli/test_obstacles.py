"""Folders that are gone, and what a killed command leaves behind."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.train_process import TINY, TrainProcess

from rllib_ezm.utils.checkpoint_folder import verify
from rllib_ezm.utils.trial_folder import checkpoints, read_result

pytestmark = pytest.mark.slow


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int) -> list[int]:
    children = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += [int(child) for child in (task / "children").read_text().split()]
    return [*children, *(other for child in children for other in descendants(child))]


def start(tmp_path: Path) -> TrainProcess:
    file = tmp_path / "tiny.py"
    file.write_text(TINY.format(iteration=60))
    options = ["--local-dir", str(tmp_path), "-n", "run", "--checkpoint-freq", "1"]
    return TrainProcess(file, *options)


def test_a_folder_that_cannot_be_written_or_is_gone_does_not_end_the_run(tmp_path: Path) -> None:
    process = start(tmp_path)
    try:
        process.wait_for("iter 2 ")
        (trial,) = (tmp_path / "run").glob("EZM*")
        aside = tmp_path / "aside"
        trial.rename(aside)
        trial.touch()  # a file where the folder was: nothing can be written into it
        process.wait_for("No checkpoint was written (")
        assert "training goes on, and the previous checkpoint stays" in process.output
        kept = checkpoints(aside)
        assert kept
        verify(kept[-1])
        trial.unlink()
        aside.rename(trial)
        last = checkpoints(trial)[-1].name
        wait_until(lambda: checkpoints(trial)[-1].name > last)

        shutil.rmtree(trial)
        wait_until(lambda: bool(checkpoints(trial)))
        process.send(signal.SIGINT, to_group=True)
        assert process.wait() == 130
        newest = checkpoints(trial)[-1]
        verify(newest)
        assert f"Checkpoint:  {newest}" in process.output
        assert "Traceback" not in process.output
    finally:
        process.end()


def test_no_process_is_left_of_a_command_that_was_killed(tmp_path: Path) -> None:
    process = start(tmp_path)
    try:
        process.wait_for("iter 1 ")
        (trial,) = (tmp_path / "run").glob("EZM*")
        wait_until(lambda: bool(checkpoints(trial)))
        ours = descendants(process.process.pid)
        assert len(ours) > 3
        actor = read_result(checkpoints(trial)[-1])["pid"]
        assert actor in ours
        process.send(signal.SIGKILL, to_group=False)
        process.wait()
        wait_until(lambda: not is_alive(actor), 30)  # nothing trains or writes any more
        wait_until(lambda: not any(map(is_alive, ours)), 90)
    finally:
        process.end()
