"""Files beside a training file that are named like modules of the standard library."""

from __future__ import annotations

from pathlib import Path

from helpers.train_process import TINY, TrainProcess

SHADOWS = ("random", "types", "code", "statistics", "queue", "colorsys")
"""Loaded before a training file, by what it imports, and in workers only."""


def test_they_do_not_hide_the_library_from_the_command_or_its_workers(tmp_path: Path) -> None:
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('not the library: {name}')\n")
    (tmp_path / "neighbor.py").write_text(
        "def make(render_mode=None):\n"
        "    import colorsys, gymnasium\n"
        "    return gymnasium.make('Pendulum-v1', render_mode=render_mode)\n"
    )
    file = tmp_path / "train.py"
    file.write_text(
        TINY.format(iteration=40)
        + "import neighbor\nfrom rllib_ezm.tasks.spec import TaskSpec\n"
        + "config.tasks([TaskSpec('own', neighbor.make, max_episode_steps=20)])\n"
    )
    options = ["--local-dir", str(tmp_path), "--stop", '{"training_iteration": 1}']
    process = TrainProcess(file, *options, cwd=tmp_path)
    try:
        assert process.wait() == 0, process.output
    finally:
        process.end()
    assert "iter 1" in process.output
