from __future__ import annotations

import numpy as np
import pytest
from helpers.scripted_env import ScriptedEnv

from rllib_ezm.tasks import ActionRepeat, IgnoreTermination

ACTION = np.zeros(1, np.float32)


def test_action_repeat_sums_rewards_and_returns_the_last_observation():
    env = ActionRepeat(ScriptedEnv(), 3)
    env.reset()
    obs, reward, terminated, truncated, _ = env.step(ACTION)
    assert (reward, terminated, truncated) == (1.0 + 2.0 + 3.0, False, False)
    assert obs.tolist() == [3.0, 3.0]
    assert env.step(ACTION)[1] == 4.0 + 5.0 + 6.0


@pytest.mark.parametrize(
    ("script", "flags"),
    [({"terminate_at": 5}, (True, False)), ({"truncate_at": 5}, (False, True))],
)
def test_action_repeat_stops_at_the_end_of_the_episode(script, flags):
    env = ActionRepeat(ScriptedEnv(**script), 3)
    env.reset()
    env.step(ACTION)
    _, reward, *ended, _ = env.step(ACTION)
    assert reward == 4.0 + 5.0
    assert tuple(ended) == flags
    assert env.unwrapped.t == 5


def test_action_repeat_must_be_positive():
    with pytest.raises(ValueError, match=">= 1, got 0"):
        ActionRepeat(ScriptedEnv(), 0)


def test_ignored_terminations_leave_truncation_alone():
    env = IgnoreTermination(ScriptedEnv(terminate_at=2, truncate_at=4))
    env.reset()
    flags = [env.step(ACTION)[2:4] for _ in range(4)]
    assert flags == [(False, False)] * 3 + [(False, True)]
