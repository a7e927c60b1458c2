from __future__ import annotations

import pickle
import subprocess
import sys
import types
from pathlib import Path

import gymnasium as gym
import pytest

from rllib_ezm.tasks import registrations
from rllib_ezm.tasks.registrations import own_registrations
from rllib_ezm.tasks.spec import TaskSpec, resolve_task

MODULE = """
import gymnasium
from gymnasium.envs.classic_control.pendulum import PendulumEnv

class Heavy(PendulumEnv):
    def __init__(self, render_mode=None, mass=1.0):
        super().__init__(render_mode)
        self.m = mass
"""
OPEN = """
import pickle, sys
for spec in pickle.load(open(sys.argv[1], "rb")):
    print(spec.name, spec.build().unwrapped.m)
"""


def make_nested(render_mode: str | None = None) -> gym.Env:
    return gym.make("Heavy-v0", render_mode=render_mode)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Gymnasium left it, whatever other tests of this process have registered since."""
    monkeypatch.setattr(gym.envs.registration, "registry", dict(registrations._BEFORE))
    monkeypatch.setattr(gym, "registry", gym.envs.registration.registry)


def test_nothing_of_gymnasium_itself_is_the_users(registry: None) -> None:
    assert own_registrations() == []


def test_what_this_process_registered_is_there_where_a_task_is_unpickled(
    registry: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import module_of_a_test

    gym.register("Heavy-v0", entry_point=module_of_a_test.Heavy, kwargs={"mass": 2.0})
    gym.register("Pendulum-v1", entry_point="module_of_a_test:Heavy", kwargs={"mass": 3.0})
    gym.register("Light-v0", "gymnasium.envs.classic_control:PendulumEnv", kwargs={"g": 1.0})
    specs = [
        resolve_task("gym:Heavy-v0"),
        resolve_task("gym:Pendulum-v1"),
        TaskSpec(name="nested", make=make_nested),
        resolve_task("gym:Light-v0"),
    ]
    (tmp_path / "specs.pkl").write_bytes(pickle.dumps(specs))
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OPEN, str(tmp_path / "specs.pkl")],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "gym:Heavy-v0 2.0\ngym:Pendulum-v1 3.0\nnested 2.0\ngym:Light-v0 1.0\n"


def test_a_registration_of_this_process_stays(registry: None) -> None:
    gym.register("Mine-v0", entry_point="elsewhere:Old")
    stored = pickle.dumps(TaskSpec(name="any", make=make_nested))
    gym.registry.pop("Mine-v0")
    gym.register("Mine-v0", entry_point="elsewhere:New")
    pickle.loads(stored)
    assert gym.spec("Mine-v0").entry_point == "elsewhere:New"


def test_a_class_that_another_of_its_module_replaced_is_left_out(
    registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a process loads one training file after the other."""
    for mass in (1.0, 2.0):
        module = types.ModuleType("training_file_of_a_test")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(MODULE, module.__dict__)
        gym.register(f"Heavy-v{mass:.0f}", entry_point=module.Heavy)
    assert [spec.id for spec in own_registrations()] == ["Heavy-v2"]
    pickle.dumps(TaskSpec(name="any", make=make_nested))
