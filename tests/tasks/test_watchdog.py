"""Environments that hang, exit, or end their process."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.faulty_env import FAULTY_STEP, FaultyEnv

from rllib_ezm.tasks import EnvironmentFailedError, TaskSpec, task_set
from rllib_ezm.tasks.failure import EnvironmentTimeoutError, environment_failed
from rllib_ezm.tasks.slot import TaskSlot
from rllib_ezm.tasks.watchdog import RESET, STEP, BlackBox, Death, Watchdog

IN_A_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from helpers.faulty_env import FAULTY_STEP, FaultyEnv
from rllib_ezm.tasks import TaskSpec, task_set
from rllib_ezm.tasks.slot import TaskSlot
from rllib_ezm.tasks.watchdog import BlackBox, Watchdog

tasks = task_set([TaskSpec("good", FaultyEnv), TaskSpec("bad", lambda: FaultyEnv(sys.argv[2]))])
slot = TaskSlot(tasks, 1, watchdog=Watchdog(float(sys.argv[3]), BlackBox(Path(sys.argv[1]))))
slot.reset(seed=0)
for _ in range(FAULTY_STEP):
    slot.step(np.zeros(1))
sys.exit("nothing happened")
"""


def faulty_slot(fault: str, flag: Path | None, timeout_s: float | None, limit: int = 3) -> TaskSlot:
    make = functools.partial(FaultyEnv, fault, str(flag) if flag else None)
    tasks = task_set([TaskSpec("walker", make)])
    return TaskSlot(tasks, 0, max_consecutive_failures=limit, watchdog=Watchdog(timeout_s))


@pytest.mark.parametrize("fault", ["exits", "hangs"])
def test_an_environment_that_exits_or_hangs_is_built_again(fault: str, tmp_path: Path) -> None:
    slot = faulty_slot(fault, tmp_path / "flag", 0.2)
    slot.reset(seed=0)
    steps = [slot.step(np.zeros(1)) for _ in range(FAULTY_STEP)]
    assert steps[-1][1:] == (0.0, False, True, {"env_failures": 1})
    assert slot.reset()[1] == {}
    assert [slot.step(np.zeros(1))[4] for _ in range(FAULTY_STEP)] == [{}] * FAULTY_STEP


def test_a_reset_that_hangs_is_tried_again(tmp_path: Path) -> None:
    slot = faulty_slot("reset hangs", tmp_path / "flag", 0.2)
    assert slot.reset(seed=0)[1] == {}
    assert slot.reset()[1] == {"env_failures": 1}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("exits", r"^walker: step\(\) raised SystemExit: 3 \(.*faulty_env.py:\d+\); failures in"),
        ("hangs", r"^walker: step\(\) took longer than env_step_timeout_s=0.1 of .*faulty_env.py:"),
    ],
)
def test_after_a_streak_the_error_names_the_task_and_the_cause(fault: str, message: str) -> None:
    slot = faulty_slot(fault, None, 0.1, limit=2)
    for _ in range(2):
        slot.reset()
        for _ in range(FAULTY_STEP - 1):
            slot.step(np.zeros(1))
        if not slot._failures:
            assert slot.step(np.zeros(1))[4] == {"env_failures": 1}
    with pytest.raises(EnvironmentFailedError, match=message):
        slot.step(np.zeros(1))


def test_an_environment_that_catches_every_exception_does_not_catch_the_timeout() -> None:
    def stubborn() -> None:
        while True:
            try:
                time.sleep(1e6)
            except Exception:  # noqa: BLE001
                continue

    with pytest.raises(EnvironmentTimeoutError, match=r"env_step_timeout_s=0\.1"):
        Watchdog(0.1).guard(0, STEP, stubborn)


def test_a_call_that_ends_in_time_leaves_nothing_behind() -> None:
    watchdog = Watchdog(0.1)
    assert watchdog.guard(0, RESET, sorted, [2, 1]) == [1, 2]
    time.sleep(0.3)  # no alarm, and pytest would show a stack dump


def test_no_limit_sets_no_alarm() -> None:
    Watchdog(None).guard(0, STEP, time.sleep, 0.01)


def test_an_exit_that_ray_asks_for_is_not_the_environments() -> None:
    exit_of_ray = SystemExit(1)
    exit_of_ray.ray_terminate_msg = "The process receives a SIGTERM."  # type: ignore[attr-defined]
    with pytest.raises(SystemExit):
        environment_failed("walker", "step()", exit_of_ray)


@pytest.mark.parametrize("fault", ["dies", "aborts", "hangs in C"])
def test_the_next_process_knows_what_the_last_one_died_of(fault: str, tmp_path: Path) -> None:
    file = tmp_path / "box"
    assert BlackBox(file).previous is None
    command = [sys.executable, "-c", IN_A_PROCESS, str(file), fault, "0.4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "nothing happened" not in done.stderr
    death = BlackBox(file).previous
    assert death is not None
    assert (death.task_id, death.call) == (1, STEP)
    text = death.describe("bad", 0.4)
    if fault == "hangs in C":
        assert "faulty_env.py:" in death.place
        assert text.startswith("bad: step() took longer than env_step_timeout_s=0.4 of .tasks(")
    else:
        assert death.place == ""
        assert text == "bad: the process died in step(), as after os._exit() or a crash"
    assert BlackBox(file).previous is None, "said once"


def test_a_process_that_died_outside_of_environments_blames_none(tmp_path: Path) -> None:
    box = BlackBox(tmp_path / "box")
    Watchdog(10.0, box).guard(1, STEP, lambda: None)
    assert BlackBox(tmp_path / "box").previous is None
    box.record(2, RESET)
    assert BlackBox(tmp_path / "box").previous == Death(2, RESET, "")


def test_a_process_that_goes_on_after_a_call_is_not_ended(tmp_path):
    """The exit that is armed for a call in C must not outlive it, whoever makes the call."""
    code = f"""
import time
from pathlib import Path
from rllib_ezm.tasks.watchdog import STEP, BlackBox, Watchdog

watchdog = Watchdog(0.2, BlackBox(Path({str(tmp_path / "box")!r})))
watchdog.guard(0, STEP, lambda: None)
time.sleep(0.6)
with watchdog.several_calls():
    watchdog.guard(0, STEP, lambda: None)
    watchdog.guard(0, STEP, lambda: None)
time.sleep(0.6)
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "alive\n", done.stderr
