"""A run goes on from the newest whole checkpoint that is there, and nothing is written over."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from helpers.train_process import TINY, TrainProcess

from rllib_ezm.cli.main import main
from rllib_ezm.utils.checkpoint_folder import verify
from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.trial_folder import checkpoints, read_result

FLAKY = """
from ray.rllib.algorithms.ppo import PPO, PPOConfig

class FlakyPPO(PPO):
    def training_step(self):
        if self.iteration == {fails_at}:
            raise RuntimeError("broke on purpose")
        super().training_step()

config = (
    PPOConfig(algo_class=FlakyPPO)
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0)
    .training(train_batch_size_per_learner=64, minibatch_size=64, num_epochs=1)
)
"""
TRIES = 3


def iterations(trial: Path, name: str = "result.json") -> list[int]:
    return [json.loads(line)["training_iteration"] for line in (trial / name).open()]


def stamps(trial: Path) -> dict[str, tuple[int, int]]:
    """Of each checkpoint: its iteration, and when it was written."""
    return {
        path.name: (
            read_result(path)["training_iteration"],
            (path / "ezm_manifest.json").stat().st_mtime_ns,
        )
        for path in checkpoints(trial)
    }


def newest_whole(trial: Path) -> Path:
    for path in reversed(checkpoints(trial)):
        try:
            verify(path)
        except UserError:
            continue
        return path
    raise AssertionError("no whole checkpoint")


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_after_kill_9_it_goes_on_from_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    file, folder = tmp_path / "tiny.py", tmp_path / "run"
    file.write_text(TINY.format(iteration=60))
    kept = ["--checkpoint-freq", "1", "--keep", "0"]
    process = TrainProcess(file, "--local-dir", str(tmp_path), "-n", "run", *kept)
    before: dict[str, tuple[int, int]] = {}
    try:
        for attempt in range(TRIES):
            process.wait_for("iter ")
            (trial,) = folder.glob("EZM*")
            while len(checkpoints(trial)) < len(before) + 3 + attempt:
                assert process.process.poll() is None, process.output
                time.sleep(0.02)
            process.send(signal.SIGKILL, to_group=False)
            process.wait()
            pid = read_result(checkpoints(trial)[-1])["pid"]
            end = time.monotonic() + 30
            while is_running(pid):
                assert time.monotonic() < end
                time.sleep(0.1)
            last = newest_whole(trial)
            before = stamps(trial)
            process = TrainProcess(file, "--resume", str(folder))
            process.wait_for("iter ")
            iteration = read_result(last)["training_iteration"]
            assert f"Going on from {last} (iteration {iteration})" in process.output
            assert int(re.search(r"iter (\d+)", process.output)[1]) == iteration + 1
        process.send(signal.SIGINT, to_group=True)
        assert process.wait() == 130
    finally:
        process.end()
    after = stamps(trial)
    assert before.items() <= after.items()  # none was written again
    saved = [iteration for iteration, _ in after.values()]
    assert saved == list(range(1, len(saved) + 1))
    # The driver may be killed before it writes the result that a checkpoint was written with.
    assert len(set(saved) - set(iterations(trial))) <= TRIES
    assert not list(trial.glob(".*"))


def flip_last_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_finished_run_goes_on_with_another_stop_and_skips_what_is_damaged(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / "tiny.py", tmp_path / "run"
    file.write_text(TINY.format(iteration=60))
    run = ["train", "file", str(file)]
    options = ["--local-dir", str(tmp_path), "-n", "run", "--checkpoint-freq", "1"]
    assert main([*run, *options, "--stop", '{"training_iteration": 2}']) == 0
    (trial,) = folder.glob("EZM*")
    flip_last_bit(trial / "checkpoint_000001" / "algorithm_state.pkl")
    (trial / ".checkpoint_000002.1a2b3c4d.partial").mkdir()
    with (trial / "result.json").open("a") as log:
        log.write('{"training_itera')
    capsys.readouterr()

    resume = [*run, "--resume", str(folder)]
    assert main(resume) == 0
    assert "Nothing was left to do" in capsys.readouterr().out
    assert main([*resume, "--stop", '{"training_iteration": 1}']) == 0
    assert "Nothing was left to do" in capsys.readouterr().out

    assert main([*resume, "--stop", '{"training_iteration": 4}', "--keep", "9"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"Skipping checkpoint_000001: .*algorithm_state\.pkl is not the file", out)
    assert f"Going on from {trial / 'checkpoint_000000'} (iteration 1)" in out
    assert iterations(trial) == [1, 2, 2, 3, 4]
    written = {name: iteration for name, (iteration, _) in stamps(trial).items()}
    assert [written[f"checkpoint_{number:06d}"] for number in range(5)] == [1, 2, 2, 3, 4]
    assert not list(trial.glob(".*"))
    assert main(resume) == 0  # the new bound holds from now on
    assert "Nothing was left to do" in capsys.readouterr().out


def test_without_a_checkpoint_it_says_so_and_keeps_the_earlier_results(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / "flaky.py", tmp_path / "run"
    file.write_text(FLAKY.format(fails_at=2))
    run = ["train", "file", str(file)]
    options = ["--local-dir", str(tmp_path), "-n", "run", "--stop", '{"training_iteration": 3}']
    assert main([*run, *options]) == 1
    (trial,) = folder.glob("FlakyPPO*")
    file.write_text(FLAKY.format(fails_at=None))
    capsys.readouterr()
    assert main([*run, "--resume", str(folder)]) == 0
    assert f"No whole checkpoint in {trial}: it begins anew." in capsys.readouterr().out
    assert iterations(trial, "result.earlier-1.json") == [1, 2]
    assert iterations(trial) == [1, 2, 3]


def test_notes_of_tune_that_are_half_written_are_put_aside(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / "ppo.py", tmp_path / "run"
    file.write_text(FLAKY.format(fails_at=None))
    run = ["train", "file", str(file)]
    options = ["--local-dir", str(tmp_path), "-n", "run", "--stop", '{"training_iteration": 1}']
    assert main([*run, *options]) == 0
    (state,) = folder.glob("experiment_state-*.json")
    half = state.read_text()[:-100]
    (folder / "experiment_state-2099-01-01_00-00-00.json").write_text(half)
    capsys.readouterr()
    assert main([*run, "--resume", str(folder)]) == 0
    assert "Nothing was left" in capsys.readouterr().out
    state.write_text(half)
    assert main([*run, "--resume", str(folder)]) == 2
    message = capsys.readouterr().err
    assert re.search(r"notes in .* cannot be read; start a new run with --restore \S+0$", message)


def test_a_new_run_starts_from_a_checkpoint_with_other_settings(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.py"
    file.write_text(TINY.format(iteration=60))
    run = ["train", "file", str(file), "--local-dir", str(tmp_path)]
    assert main([*run, "-n", "first", "--stop", '{"training_iteration": 2}']) == 0
    (checkpoint,) = (tmp_path / "first").glob("*/checkpoint_*")
    before = stamps(checkpoint.parent)
    file.write_text(
        TINY.format(iteration=60) + "config.env_runners(num_env_runners=1).training(lr=0.007)\n"
    )
    capsys.readouterr()
    restore = ["--restore", str(checkpoint), "--stop", '{"training_iteration": 4}']
    assert main([*run, "-n", "second", *restore]) == 0
    out = capsys.readouterr().out
    assert f"Starting from {checkpoint} (iteration 2)" in out
    assert re.findall(r"Differs: +(\w+) = (\S+)", out) == [
        ("lr", "0.007"),
        ("num_env_runners", "1"),
    ]
    (trial,) = (tmp_path / "second").glob("EZM*")
    assert iterations(trial) == [3, 4]
    first, second = (
        [json.loads(line) for line in (path / "result.json").open()]
        for path in (checkpoint.parent, trial)
    )
    assert second[0]["num_updates_lifetime"] > first[-1]["num_updates_lifetime"]
    assert second[0]["time_total_s"] > first[-1]["time_total_s"]
    assert stamps(checkpoint.parent) == before

    file.write_text(FLAKY.format(fails_at=None))
    assert main([*run, "-n", "third", "--restore", str(checkpoint)]) == 2
    assert "is of EZM" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()
    assert os.listdir(tmp_path / "second")
