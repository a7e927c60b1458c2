"""Real signals to a real run: it is saved, says how to go on, and ends with the shell's code."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.train_process import TINY, TrainProcess

from rllib_ezm.utils.checkpoint_folder import verify

pytestmark = pytest.mark.slow

MARK = """
from pathlib import Path
config.callbacks(on_episode_end=lambda **info: Path({mark!r}).touch())
"""
SLOW_PPO = """
import time
from ray.rllib.algorithms.ppo import PPO, PPOConfig

class SlowPPO(PPO):
    def training_step(self):
        if self.iteration == 1:
            time.sleep(300)
        super().training_step()

config = (
    PPOConfig(algo_class=SlowPPO)
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0)
    .training(train_batch_size_per_learner=64, minibatch_size=64, num_epochs=1)
)
"""


class Run:
    """A run of the tiny experiment whose first iteration never ends by itself."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder / "run", folder / "episode_ended"
        self.file = folder / "tiny.py"
        self.file.write_text(TINY.format(iteration=10**9) + MARK.format(mark=str(self.mark)))
        self.options = ["--local-dir", str(folder), "-n", "run"]
        self.started: list[TrainProcess] = []

    def start(self, **popen: object) -> TrainProcess:
        self.started.append(TrainProcess(self.file, *self.options, **popen))
        return self.started[-1]

    def wait_for_an_episode(self) -> None:
        end = time.monotonic() + 120
        while not self.mark.exists():
            assert self.started[-1].process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)

    def check_saved(self, output: str) -> None:
        """One whole checkpoint with updates in it, and the command to go on."""
        (checkpoint,) = self.folder.glob("*/checkpoint_*")
        verify(checkpoint)
        assert f"Checkpoint:  {checkpoint}" in output
        assert f"Go on with:  rllib train file {self.file} --resume {self.folder}" in output
        assert "Traceback" not in output
        (results,) = self.folder.glob("*/result.json")
        assert json.loads(results.read_text().splitlines()[-1])["training_iteration"] == 1
        assert not list(self.folder.glob("*/.save_now"))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    for process in made.started:
        process.end()


def test_ctrl_c_in_a_shell_saves_a_run_whose_iteration_takes_for_ever(run: Run) -> None:
    process = run.start()
    run.wait_for_an_episode()
    process.send(signal.SIGINT, to_group=True)
    process.send(signal.SIGINT, to_group=True)  # a wrapper passes it on: the same key press
    assert process.wait() == 130
    run.check_saved(process.output)


def test_sigterm_saves(run: Run) -> None:
    process = run.start()
    run.wait_for_an_episode()
    process.send(signal.SIGTERM, to_group=False)
    assert process.wait() == 143
    run.check_saved(process.output)


def test_a_closed_terminal_saves_and_the_message_is_in_a_file(run: Run) -> None:
    ours, theirs = os.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = run.start(output=theirs, preexec_fn=take_terminal)
    os.close(theirs)
    run.wait_for_an_episode()
    os.close(ours)  # the kernel sends SIGHUP to the terminal's processes
    assert process.wait() == 129
    run.check_saved((run.folder / "hangup.log").read_text())


def test_a_run_in_a_script_gets_its_ctrl_c(run: Run) -> None:
    """Ray moves the process that starts it out of the script's process group."""
    shell = ["bash", "-c", '"$@"; echo "code $?"', "bash"]
    process = run.start(prefix=shell)
    run.wait_for_an_episode()
    process.send(signal.SIGINT, to_group=True)
    process.wait()
    run.check_saved(process.output)


def test_a_signal_before_the_first_iteration_ends_the_command(run: Run) -> None:
    process = run.start()
    process.wait_for("Results: ")
    process.send(signal.SIGINT, to_group=True)
    assert process.wait() == 130
    assert "Traceback" not in process.output


def test_a_second_ctrl_c_says_what_is_lost_and_stops_at_once(tmp_path: Path) -> None:
    file = tmp_path / "slow.py"
    file.write_text(SLOW_PPO)
    options = ["--local-dir", str(tmp_path), "-n", "slow", "--checkpoint-freq", "1"]
    process = TrainProcess(file, *options)
    try:
        process.wait_for("iter 1 ")
        (folder,) = (tmp_path / "slow").glob("SlowPPO*")
        while not (folder / "checkpoint_000000" / "rllib_checkpoint.json").is_file():
            time.sleep(0.1)
        time.sleep(1)  # the next iteration is under way, and takes 300 s
        process.send(signal.SIGINT, to_group=True)
        process.wait_for("saving 1 running trial")
        time.sleep(1)
        second = time.monotonic()
        process.send(signal.SIGINT, to_group=True)
        assert process.wait(10) == 130
        assert time.monotonic() - second < 5
        last = re.search(
            r"Stopping at once\.\n.*the one under way\. Last checkpoint: (\S+)", process.output
        )
        assert last is not None, process.output
        assert last[1] == str(folder / "checkpoint_000000")
    finally:
        process.end()
