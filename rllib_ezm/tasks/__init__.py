"""Tasks: what to train on, and how different tasks share one padded observation and action space.

    tasks = task_set(["dmc:walker-run", {"name": "dmc:cartpole-swingup", "action_repeat": 2}])
    env = tasks.make(0)

Reading order: `spec.py` (names and `TaskSpec`), `dm_control.py`, `gymnasium_task.py` and
`humanoid_bench.py` (the built-in families; the last one on top of `mujoco_env.py`), `wrappers.py`
(action repeat), `padding.py` (`PadTask`), `multitask.py` (`TaskSet`), `slot.py` (`TaskSlot`),
`pool.py` (`EnvPool`), `failure.py` (environments that raise), `process_vector.py` and
`env_process.py` (slots in processes). This layer does not import Ray.
"""

from __future__ import annotations

from rllib_ezm.tasks.dm_control import DMControlEnv
from rllib_ezm.tasks.failure import EnvironmentFailedError
from rllib_ezm.tasks.gymnasium_task import make_gymnasium_env
from rllib_ezm.tasks.humanoid_bench import HumanoidBenchEnv
from rllib_ezm.tasks.mujoco_env import GuardedMujocoEnv
from rllib_ezm.tasks.multitask import TaskSet, task_set
from rllib_ezm.tasks.padding import PadTask
from rllib_ezm.tasks.spec import TaskSpec, register_prefix, register_task, resolve_task
from rllib_ezm.tasks.wrappers import ActionRepeat, IgnoreTermination

__all__ = [
    "ActionRepeat",
    "DMControlEnv",
    "EnvironmentFailedError",
    "GuardedMujocoEnv",
    "HumanoidBenchEnv",
    "IgnoreTermination",
    "PadTask",
    "TaskSet",
    "TaskSpec",
    "make_gymnasium_env",
    "register_prefix",
    "register_task",
    "resolve_task",
    "task_set",
]
