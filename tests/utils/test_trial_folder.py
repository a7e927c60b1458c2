"""Names of checkpoints are never given twice; the newest and the best ones stay."""

from __future__ import annotations

import math
from pathlib import Path

from rllib_ezm.utils.checkpoint_folder import write_manifest
from rllib_ezm.utils.trial_folder import (
    checkpoints,
    next_checkpoint,
    read_result,
    remove,
    score_of,
    surplus_checkpoints,
    write_result,
)


def make(trial: Path, number: int, score: float | None = None) -> Path:
    folder = trial / f"checkpoint_{number:06d}"
    folder.mkdir()
    evaluation = {} if score is None else {"evaluation": {"normalized_score_mean": score}}
    write_result(folder, {"training_iteration": number, "config": {"lr": 1.0}, **evaluation})
    write_manifest(folder)
    return folder


def test_a_number_is_given_once(tmp_path: Path) -> None:
    assert next_checkpoint(tmp_path / "nowhere", -1).name == "checkpoint_000000"
    make(tmp_path, 3)
    make(tmp_path, 12)
    (tmp_path / ".checkpoint_000099.1a2b.partial").mkdir()
    (tmp_path / "checkpoint_of_mine").mkdir()
    assert [path.name[-2:] for path in checkpoints(tmp_path)] == ["03", "12"]
    assert next_checkpoint(tmp_path, 4).name == "checkpoint_000013"
    assert next_checkpoint(tmp_path, 20).name == "checkpoint_000021"


def test_the_newest_and_the_best_one_stay(tmp_path: Path) -> None:
    assert surplus_checkpoints(tmp_path, 2) == []
    scores = [None, 0.5, 0.9, -0.1, 0.9, math.nan, 0.2, 0.3]
    made = [make(tmp_path, number, score) for number, score in enumerate(scores)]
    (tmp_path / "checkpoint_000000" / "ezm_manifest.json").unlink()  # not whole: left alone
    assert surplus_checkpoints(tmp_path, 2) == [made[number] for number in (1, 2, 3, 5)]
    for folder in surplus_checkpoints(tmp_path, 2):
        remove(folder)
    assert [path for path in checkpoints(tmp_path) if path not in made[4:]] == made[:1]
    assert surplus_checkpoints(tmp_path, 1) == [made[6]]


def test_without_a_score_only_the_newest_stay(tmp_path: Path) -> None:
    made = [make(tmp_path, number) for number in range(4)]
    assert surplus_checkpoints(tmp_path, 1) == made[:3]
    assert score_of(made[0]) is None


def test_a_result_is_flat_and_may_be_absent(tmp_path: Path) -> None:
    folder = make(tmp_path, 7, 0.25)
    assert read_result(folder) == {
        "training_iteration": 7,
        "evaluation/normalized_score_mean": 0.25,
    }
    (folder / "tune_result.json").write_text("{")
    assert read_result(folder) == {}
