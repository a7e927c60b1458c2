from __future__ import annotations

import json

import numpy as np
import pytest

from rllib_ezm.utils.spaces import TaskSpaces

SPACES = TaskSpaces(
    observation={"camera": (2, 2), "speed": ()},
    action_shape=(2, 1),
    action_low=(-2.0, 0.0),
    action_high=(2.0, 1.0),
    action_dtype="float32",
)


def test_the_parts_of_an_observation_follow_each_other_then_zeros() -> None:
    row = SPACES.flatten({"speed": 5, "camera": np.array([[1, 2], [3, 4]])}, 7)
    assert row.tolist() == [1, 2, 3, 4, 5, 0, 0]
    assert row.dtype == np.float32
    assert (SPACES.obs_dim, SPACES.action_dim) == (5, 2)


def test_an_observation_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'camera' must be numbers of the shape \(2, 2\)"):
        SPACES.flatten({"speed": 5, "camera": np.zeros(4)}, 7)


def test_actions_are_clipped_and_scaled_to_the_bounds() -> None:
    own = SPACES.to_bounds(np.array([0.5, -3.0, 9.0]))
    assert own.tolist() == [[1.0], [0.0]]
    assert own.dtype == np.float32
    with pytest.raises(ValueError, match="must be finite"):
        SPACES.to_bounds(np.array([0.0, np.nan]))


def test_json_keeps_everything() -> None:
    assert TaskSpaces.from_json(json.loads(json.dumps(SPACES.to_json()))) == SPACES
