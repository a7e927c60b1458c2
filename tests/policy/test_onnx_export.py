"""A policy as one ONNX graph: the same actions as in PyTorch, without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_policy import tiny_policy

from rllib_ezm.cli.main import main
from rllib_ezm.policy.load import save_policy
from rllib_ezm.policy.onnx_export import METADATA, draw_random_inputs, export_onnx, open_session
from rllib_ezm.utils.errors import UserError

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("reduction", ["random_pair", "min", "mean"])
def test_the_search_is_that_of_pytorch(reduction: str, tmp_path: Path) -> None:
    policy = tiny_policy(value_reduction=reduction, num_value_heads=3)
    exported = export_onnx(policy, "b", tmp_path / "b.onnx")
    assert exported.parity.same_action >= 0.99
    assert exported.parity.largest_difference <= 1e-5
    assert 0 < exported.p50_ms <= exported.p99_ms
    assert exported.num_simulations == 4


def test_the_mean_is_that_of_the_policy(tmp_path: Path) -> None:
    policy = tiny_policy()
    exported = export_onnx(policy, "a", tmp_path / "a.onnx", planner="mean")
    assert exported.parity.same_action == 1.0
    assert exported.parity.largest_difference <= 1e-5
    session = open_session(exported.file)
    observation = np.random.default_rng(0).normal(size=(1, 3)).astype(np.float32)
    (action,) = session.run(None, {"observation": observation})
    expected = policy.predict(observation[0], "a", planner="mean")
    np.testing.assert_allclose(action[0], expected, atol=1e-5)
    assert action.shape == (1, 1)
    assert (np.abs(action) <= 2.0).all()


def test_a_search_gives_the_action_of_predict_with_the_same_random_numbers(tmp_path: Path) -> None:
    policy = tiny_policy(num_value_heads=2)
    exported = export_onnx(policy, "b", tmp_path / "b.onnx")
    session = open_session(exported.file)
    metadata = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    shapes = metadata["random_inputs"]
    assert list(shapes) == ["root_noise", "child_noise"]
    for seed in range(20):
        observation = np.random.default_rng(seed).normal(size=5).astype(np.float32)
        torch.manual_seed(seed)  # in the order in which a search draws them
        drawn = {name: torch.randn(*shape).numpy() for name, shape in shapes.items()}
        policy.reset(seed)
        expected = policy.predict(observation, "b")
        (action,) = session.run(None, {"observation": observation[None], **drawn})
        np.testing.assert_allclose(action[0], expected, atol=1e-4)


def test_the_metadata_is_enough_to_call_it(tmp_path: Path) -> None:
    exported = export_onnx(tiny_policy(num_value_heads=3), "b", tmp_path / "b.onnx")
    session = open_session(exported.file)
    metadata = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    assert (metadata["task"], metadata["planner"], metadata["num_simulations"]) == (
        "b",
        "search",
        4,
    )
    assert metadata["spaces"]["observation"] == {"": [5]}
    assert metadata["spaces"]["action_high"] == [1.0, 3.0]
    drawn = draw_random_inputs(metadata, np.random.default_rng(0))
    assert all(len(set(pair)) == 2 for pair in drawn["heads"].tolist())
    inputs = {"observation": np.zeros((1, 5), np.float32), **drawn}
    assert {i.name for i in session.get_inputs()} == set(inputs)
    assert session.run(None, inputs)[0].shape == (1, 2)


def test_a_budget_is_kept_with_fewer_simulations_or_refused(tmp_path: Path) -> None:
    policy = tiny_policy()
    kept = export_onnx(policy, "a", tmp_path / "a.onnx", budget_ms=1000.0)
    assert kept.num_simulations == 4
    with pytest.raises(UserError, match="Not even the mean"):
        export_onnx(policy, "a", tmp_path / "a.onnx", budget_ms=1e-6)


def test_the_command_writes_a_file_for_each_task_that_runs_without_torch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_policy(tiny_policy(), tmp_path / "policy")
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "policy"), "--planner", "mean", "--out", str(out)]) == 0
    assert "p99 ms" in capsys.readouterr().out
    assert sorted(file.name for file in out.iterdir()) == ["a.onnx", "b.onnx"]
    script = f"""
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession({str(out / "a.onnx")!r})
print(session.run(None, {{"observation": numpy.zeros((1, 3), numpy.float32)}})[0].shape)
assert "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "(1, 1)", result.stderr


def test_the_command_refuses_an_unknown_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_policy(tiny_policy(), tmp_path)
    assert main(["export", str(tmp_path), "--task", "c", "--out", str(tmp_path / "out")]) == 2
    assert "it has a, b" in capsys.readouterr().err
