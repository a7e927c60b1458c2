"""`rllib train file` in a process of its own, to be sent real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TINY = """
from rllib_ezm import EZMConfig

config = (
    EZMConfig()
    .tasks([{{"name": "gym:Pendulum-v1", "max_episode_steps": 20}}])
    .training(
        train_batch_size_per_learner=8,
        unroll_steps=2,
        td_steps=3,
        num_random_steps=0,
        num_steps_sampled_before_learning_starts=40,
        replay_ratio=0.1,
    )
    .world_model(
        latent_dim=32, embedding_dim=8, action_embedding_dim=8, num_blocks=1, num_value_heads=2,
        head_dim=32, projection_dim=32,
    )
    .search(num_simulations=4, num_candidates=4, policy_candidates=2)
    .replay(capacity_per_task=2000)
    .debugging(seed=1)
    .reporting(min_sample_timesteps_per_iteration={iteration})
)
"""
"""An experiment file without a stop; `iteration`: env steps."""

COMMAND = Path(__file__).with_name("rllib_command.py")


class TrainProcess:
    """The command, with its output in a file; the leader of a process group as in a shell."""

    def __init__(self, file: Path, *options: str, **popen: object) -> None:
        self.log = file.with_suffix(f".{time.monotonic_ns()}.log")
        self.log.touch()
        output = popen.pop("output", None) or self.log.open("w")
        self.process = subprocess.Popen(
            [
                *popen.pop("prefix", []),
                sys.executable,
                str(COMMAND),
                "train",
                "file",
                str(file),
                *options,
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
            **popen,
        )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for(self, text: str, seconds: float = 120.0) -> None:
        """Until the output holds `text`."""
        end = time.monotonic() + seconds
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.05)

    def send(self, signum: signal.Signals, *, to_group: bool) -> None:
        """As `kill` does, or as a terminal does."""
        if to_group:
            os.killpg(self.process.pid, signum)
        else:
            self.process.send_signal(signum)

    def wait(self, seconds: float = 120.0) -> int:
        """The exit code."""
        return self.process.wait(timeout=seconds)

    def end(self) -> None:
        """For the end of a test, whatever has become of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
