"""Updates that are recorded and replayed, with a stand-in for CUDA graphs."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.replaying_recorder import ReplayingRecorder
from helpers.tiny_step import CASES, make_step, random_batch

from rllib_ezm.update.captured import CapturedUpdate
from rllib_ezm.update.step import GradientStep

CPU = torch.device("cpu")


def captured(case: str, **changes: object) -> tuple[GradientStep, GradientStep, ReplayingRecorder]:
    """An eager step, one that is recorded, and its recorder."""
    search, settings = CASES[case]
    plain = make_step(CPU, search, **{**settings, **changes})
    recorded = make_step(CPU, search, **{**settings, **changes})
    for step in (plain, recorded):  # a number that a tensor in fp32 has as well
        step.optimizer.param_groups[0]["lr"] = 2.0**-10
    recorder = ReplayingRecorder()
    recorded.capture(recorder)
    plain.reanalyzer.planner.in_recordings = True  # the same products of the heads
    return plain, recorded, recorder


def assert_equal(found: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0, msg=name)


def assert_same_updates(plain: GradientStep, recorded: GradientStep, seeds: range) -> None:
    for seed in seeds:
        outputs = []
        for step in (plain, recorded):
            torch.manual_seed(seed)
            outputs.append(step(random_batch(seed)))
        expected, found = outputs
        for name, value in expected.metrics.items():
            assert_equal(found.metrics[name], value, f"{seed}: {name}")
        assert_equal(found.priorities, expected.priorities, f"{seed}: priorities")
    for ours, theirs in (
        (recorded.model, plain.model),
        (recorded.target_model, plain.target_model),
    ):
        for name, value in theirs.state_dict().items():
            assert_equal(ours.state_dict()[name], value, name)


@pytest.mark.parametrize("case", CASES)
def test_a_replayed_update_is_the_update(case: str) -> None:
    plain, recorded, recorder = captured(case)
    assert_same_updates(plain, recorded, range(4))
    assert recorder.replays == 2, "the first is a warm-up, the second is recorded"


def test_what_changes_between_updates_reaches_the_recording() -> None:
    """The learning rate, the weights of a restore, and the target network's period."""
    plain, recorded, recorder = captured(
        "paper", target_period=3, value_mixing="age", value_mixing_start=5, value_mixing_age=3
    )
    assert_same_updates(plain, recorded, range(10))
    for step in (plain, recorded):
        step.optimizer.param_groups[0]["lr"] = 2.0**-5
    assert_same_updates(plain, recorded, range(10, 13))
    other = copy.deepcopy(plain.model.state_dict())
    for step in (plain, recorded):
        step.model.load_state_dict({name: x * 0.9 for name, x in other.items()})
        step.target_model.load_state_dict({name: x * 0.9 for name, x in other.items()})
        step.optimizer.param_groups[0]["weight_decay"] = 0.5
    assert_same_updates(plain, recorded, range(13, 22))
    assert isinstance(recorded._run, CapturedUpdate)
    # Kinds of updates are mixing or not, following or not, and two weight decays. The first of a
    # kind is a warm-up, and there is only one that follows before mixing starts.
    assert recorded._run.num_recordings == 5
    assert recorder.replays == 22 - 5 - 6


def test_another_batch_size_is_recorded_anew() -> None:
    plain, recorded, recorder = captured("paper")
    assert_same_updates(plain, recorded, range(3))
    assert recorder.replays == 1
    for seed in range(3):
        for step in (plain, recorded):
            torch.manual_seed(seed)
            output = step({name: column[:4] for name, column in random_batch(seed).items()})
            assert output.priorities.shape == (4,)
    assert recorder.replays == 2
    assert_same_updates(plain, recorded, range(3, 6))


def test_a_skipped_update_is_skipped_in_a_replay() -> None:
    plain, recorded, recorder = captured("paper")
    assert_same_updates(plain, recorded, range(3))
    before = copy.deepcopy(recorded.model.state_dict())
    batch = random_batch(3)
    batch["rewards"][0, 0] = torch.nan
    assert recorded(batch).metrics["skipped_updates"] == 1
    assert recorder.replays == 2
    for name, value in recorded.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, msg=name)
