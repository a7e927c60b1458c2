"""Slots in processes play what slots in this one do, whatever their environments do."""

from __future__ import annotations

import functools
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from helpers.faulty_env import FAULTY_STEP, LENGTH, FaultyEnv
from helpers.info_env import InfoEnv
from helpers.scripted_env import ScriptedEnv

from rllib_ezm.tasks import EnvironmentFailedError, TaskSpec, task_set
from rllib_ezm.tasks.multitask import TaskSet
from rllib_ezm.tasks.pool import EnvPool
from rllib_ezm.tasks.process_vector import ProcessVector, SlotSettings
from rllib_ezm.tasks.slot import TaskSlot
from rllib_ezm.tasks.watchdog import Watchdog, WatchedVectorEnv

SETTINGS = SlotSettings("respect", 3, 1.0)


def faulty_tasks(fault: str, flag: Path | None = None) -> TaskSet:
    """A good task and a bad one."""
    make = functools.partial(FaultyEnv, fault, str(flag) if flag else None)
    return task_set([TaskSpec("good", FaultyEnv), TaskSpec("bad", make)])


def in_this_process(tasks: TaskSet, slots: list[int]) -> WatchedVectorEnv:
    watchdog = Watchdog(SETTINGS.timeout_s)
    make = functools.partial(
        TaskSlot, tasks, pool=EnvPool(tasks), max_consecutive_failures=3, watchdog=watchdog
    )
    return WatchedVectorEnv(
        watchdog,
        [functools.partial(make, task_id=task) for task in slots],
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )


def play(env: Any, steps: int) -> list[Any]:
    """Two seeded episodes' worth of results, with tasks that change, then more without a seed."""
    rng = np.random.default_rng(0)
    results = []
    for seed in (5, 6):
        results.append(env.reset(seed=seed))
        for step in range(steps):
            for number, slot in enumerate(env.envs):
                slot.next_task = (number + step) % 2
            actions = rng.uniform(-1.0, 1.0, (env.num_envs, env.single_action_space.shape[0]))
            results.append(env.step(actions.astype(np.float32)))
    env.close()
    return results


def assert_equal(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            assert_equal(ours[key], theirs[key])
    elif isinstance(ours, tuple | list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other)
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert ours == theirs


@pytest.mark.parametrize("num_processes", [1, 2, 9])
def test_trajectories_are_those_of_one_process(num_processes: int) -> None:
    scripted = functools.partial(
        ScriptedEnv, obs_shape=(5,), low=(-1.0,) * 3, high=(2.0,) * 3, terminate_at=4
    )
    tasks = task_set([TaskSpec("scripted", scripted), "gym:Pendulum-v1"])
    slots = [0, 1, 1]
    env = ProcessVector(tasks, slots, num_processes, SETTINGS)
    assert env.observation_space == in_this_process(tasks, slots).observation_space
    assert env.action_space == in_this_process(tasks, slots).action_space
    assert_equal(play(env, 25), play(in_this_process(tasks, slots), 25))


@pytest.mark.parametrize("fault", ["step raises", "exits", "hangs", "reset raises", "nan reward"])
def test_what_a_slot_handles_is_handled_as_in_one_process(fault: str, tmp_path: Path) -> None:
    one, other = (faulty_tasks(fault, tmp_path / name) for name in ("one", "other"))
    played = play(ProcessVector(one, [1, 0, 1], 1, SETTINGS), 2 * LENGTH)
    assert_equal(played, play(in_this_process(other, [1, 0, 1]), 2 * LENGTH))
    assert fault == "nan reward" or {"env_failures": 1} in [x for step in played for x in step[-1]]


def two_processes(tasks: TaskSet, slots: list[int]) -> ProcessVector:
    return ProcessVector(tasks, slots, 2, SETTINGS)


@pytest.mark.parametrize("fault", ["dies", "aborts", "hangs in C"])
def test_a_process_that_an_environment_ends_is_replaced(
    fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    env = two_processes(faulty_tasks(fault, tmp_path / "flag"), [0, 1, 0, 1])
    env.reset(seed=1)
    before = env.process_ids
    with caplog.at_level(logging.WARNING, "rllib_ezm.tasks.process_vector"):
        for _ in range(FAULTY_STEP):
            last = env._last.copy()
            obs, rewards, terminated, truncated, infos = env.step(np.zeros((4, 1)))
    # Slots 0 and 1 share a process, and 2 and 3; each has a bad one, of which only one is first.
    ended = [slot for slot in range(4) if truncated[slot]]
    assert ended in ([0, 1], [2, 3])
    others = [slot for slot in range(4) if slot not in ended]
    assert [infos[slot] for slot in ended] == [{"env_failures": 0}, {"env_failures": 1}]
    assert [infos[slot] for slot in others] == [{}, {}]
    np.testing.assert_array_equal(obs["obs"][ended], last[ended])
    np.testing.assert_array_equal(rewards[ended], 0.0)
    np.testing.assert_array_equal(rewards[others], FAULTY_STEP)
    assert not terminated.any()
    assert "bad: " in caplog.text
    assert "The process of 2 environments is replaced" in caplog.text
    assert len(set(before) & set(env.process_ids)) == 1
    for step in range(LENGTH + 1):
        obs, rewards, _, truncated, infos = env.step(np.zeros((4, 1)))
        np.testing.assert_array_equal(rewards[ended], step)
        assert infos == [{}] * 4
    assert truncated[ended].all()
    env.close()


def test_an_environment_that_ends_its_process_in_reset_is_reset_again(tmp_path: Path) -> None:
    env = ProcessVector(faulty_tasks("reset dies", tmp_path / "flag"), [0, 1], 1, SETTINGS)
    env.reset(seed=1)
    for _ in range(LENGTH):
        env.step(np.zeros((2, 1)))
    obs, rewards, _, truncated, infos = env.step(np.zeros((2, 1)))
    np.testing.assert_array_equal(rewards, 0.0)
    np.testing.assert_array_equal(obs["obs"][:, 1], 0.0)
    assert not truncated.any()
    assert infos == [{}, {"env_failures": 1}]
    np.testing.assert_array_equal(env.step(np.zeros((2, 1)))[1], 1.0)
    env.close()


def test_the_next_episodes_have_seeds_that_follow_from_the_first(tmp_path: Path) -> None:
    starts = []
    for number in range(2):
        env = ProcessVector(faulty_tasks("dies", tmp_path / f"{number}"), [1], 1, SETTINGS)
        first = env.reset(seed=1)[0]["obs"]
        for _ in range(FAULTY_STEP):
            env.step(np.zeros((1, 1)))
        starts.append([first[0, 0], env.step(np.zeros((1, 1)))[0]["obs"][0, 0]])
        env.close()
    assert starts[0] == starts[1]
    assert starts[0][0] != starts[0][1]


def test_a_process_killed_between_two_steps_blames_no_task() -> None:
    env = ProcessVector(faulty_tasks("none"), [0, 1], 1, SETTINGS)
    env.reset(seed=1)
    os.kill(env.process_ids[0], signal.SIGKILL)
    _, _, _, truncated, infos = env.step(np.zeros((2, 1)))
    assert truncated.all()
    assert infos == [{"env_failures": 0}, {"env_failures": 0}]
    env.step(np.zeros((2, 1)))
    np.testing.assert_array_equal(env.step(np.zeros((2, 1)))[1], 1.0)
    env.close()


def step_on(env: ProcessVector) -> None:
    for _ in range(4 * LENGTH):
        env.step(np.zeros((env.num_envs, 1)))


def test_after_a_streak_of_ends_the_error_names_the_task() -> None:
    env = ProcessVector(faulty_tasks("dies"), [0, 1], 2, SETTINGS)
    env.reset(seed=1)
    message = r"^bad: the process died in step\(\).*ended in a row: 3 \(max_consecutive_env_fail"
    with pytest.raises(EnvironmentFailedError, match=message):
        step_on(env)
    env.close()


def test_episodes_that_end_well_end_a_streak(tmp_path: Path) -> None:
    env = ProcessVector(faulty_tasks("dies", tmp_path / "flag"), [1], 1, SETTINGS)
    env.reset(seed=1)
    for _ in range(FAULTY_STEP):
        env.step(np.zeros((1, 1)))
    assert env._deaths == {1: 1}
    for _ in range(LENGTH + 1):
        env.step(np.zeros((1, 1)))
    assert env._deaths == {}
    env.close()


def test_an_environment_that_always_fails_is_named() -> None:
    env = ProcessVector(faulty_tasks("always"), [0, 1], 2, SETTINGS)
    env.reset(seed=1)
    with pytest.raises(EnvironmentFailedError, match=r"^bad: step\(\) raised ValueError: no way"):
        step_on(env)
    env.close()


def test_other_errors_are_raised_here_with_their_traceback() -> None:
    env = ProcessVector(faulty_tasks("none"), [0, 1], 2, SETTINGS)
    env.reset(seed=1)
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*the action must be finite"):
        env.step(np.full((2, 1), np.nan))
    env.close()


def test_infos_come_along_as_far_as_they_can_be_pickled() -> None:
    env = ProcessVector(task_set([TaskSpec("info", InfoEnv)]), [0], 1, SETTINGS)
    assert env.reset(seed=1)[1] == [{"note": 1}]
    assert env.step(np.zeros((1, 1)))[4] == [{"note": 2}]
    env.close()


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{process}/status").read_text()


def wait_until_gone(processes: list[int]) -> None:
    end = time.monotonic() + 20.0
    while any(map(is_running, processes)) and time.monotonic() < end:
        time.sleep(0.05)
    assert [process for process in processes if is_running(process)] == []


@pytest.mark.parametrize("how", ["close", "forgotten"])
def test_no_process_is_left(how: str) -> None:
    env = two_processes(faulty_tasks("none"), [0, 1])
    assert env.process_ids == []
    env.reset(seed=1)
    processes, folder = env.process_ids, env._folder
    assert len(processes) == 2
    if how == "close":
        env.close()
    del env
    wait_until_gone(processes)
    assert not folder.exists()


FOR_EVER = """
import functools, sys
import numpy as np
from helpers.faulty_env import FaultyEnv
from rllib_ezm.tasks import TaskSpec, task_set
from rllib_ezm.tasks.process_vector import ProcessVector, SlotSettings

tasks = task_set([TaskSpec("good", FaultyEnv), TaskSpec("bad", lambda: FaultyEnv("hangs"))])
env = ProcessVector(tasks, [0, 1], 2, SlotSettings("respect", 3, None))
env.reset(seed=1)
print(*env.process_ids, flush=True)
while True:
    env.step(np.zeros((2, 1)))
"""


def test_no_process_outlives_a_killed_env_runner() -> None:
    with subprocess.Popen([sys.executable, "-c", FOR_EVER], stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        processes = [int(word) for word in runner.stdout.readline().split()]
        assert len(processes) == 2
        assert all(map(is_running, processes))
        runner.kill()
    wait_until_gone(processes)


def test_a_process_needs_neither_torch_nor_ray() -> None:
    code = "import sys, rllib_ezm.tasks.env_process; print({'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_file_of_the_user_hides_no_module_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise ImportError('the wrong module')\n")
    monkeypatch.chdir(tmp_path)
    env = ProcessVector(faulty_tasks("none"), [0], 1, SETTINGS)
    assert env.reset(seed=1)[1] == [{}]
    env.close()


class GoneElsewhere:
    """A factory that no other process can have."""

    def __call__(self) -> FaultyEnv:
        return FaultyEnv()

    def __reduce__(self) -> Any:
        return os.fspath, (len,)  # raises where it is unpickled


def test_tasks_that_cannot_reach_a_process_are_an_error_at_once() -> None:
    env = ProcessVector(task_set([TaskSpec("gone", GoneElsewhere())]), [0], 1, SETTINGS)
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*TypeError"):
        env.reset(seed=1)
    env.close()
