"""The examples run as they are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny import build_module, tiny_config

from rllib_ezm.algorithm.policy_description import describe_policy
from rllib_ezm.policy import Policy

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*arguments: object) -> str:
    command = [sys.executable, *(str(argument) for argument in arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_more_candidates_come_closer_to_the_best_plan_and_refined_ones_still_more() -> None:
    printed = run(EXAMPLES / "search_a_linear_system.py")
    few, more, many, refined = (float(x) for x in re.findall(r"([\d.]+) from the best", printed))
    assert few > more > many > refined
    assert refined < 0.1


@pytest.mark.slow
def test_an_exported_walker_is_played_without_torch(tmp_path: Path) -> None:
    for package in ("onnxscript", "onnxruntime", "dm_control"):
        pytest.importorskip(package)
    import mujoco
    from dm_control.suite import walker

    from rllib_ezm.policy.onnx_export import export_onnx

    config = tiny_config(["dmc:walker-stand"], action_repeat=2)
    weights = {
        name.removeprefix("model."): tensor
        for name, tensor in build_module(config).state_dict().items()
        if name.startswith("model.")
    }
    policy = Policy(describe_policy(config, 0), weights)
    exported = export_onnx(policy, "dmc:walker-stand", tmp_path / "stand.onnx")
    physics = walker.Physics.from_xml_string(*walker.get_model_and_assets())
    mujoco.mj_saveLastXML(str(tmp_path / "walker.xml"), physics.model.ptr)
    script = EXAMPLES / "play_onnx.py"
    assert "torch" not in script.read_text()
    printed = run(script, exported.file, tmp_path / "walker.xml", "--episodes", 2)
    found = re.search(r"dmc:walker-stand: return ([\d.]+) \+- [\d.]+", printed)
    assert found, printed
    assert 50 < float(found[1]) < 500, "an untrained one falls: random actions return 141"
