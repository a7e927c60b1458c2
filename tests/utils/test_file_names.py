from __future__ import annotations

from pathlib import Path

import pytest

from rllib_ezm.utils.file_names import file_names


def test_names_stay_readable() -> None:
    assert file_names(["dmc:walker-run", "my task/1"]) == ["dmc_walker-run", "my_task_1"]


def test_no_two_names_are_alike() -> None:
    names = ["a/b", "a_b", "A_B", "a b", "a_b-2", "a:b", "x" * 300, "x" * 301]
    chosen = file_names(names)
    assert len({name.casefold() for name in chosen}) == len(names)
    assert chosen[:2] == ["a_b", "a_b-2"]


@pytest.mark.parametrize(
    "name", ["../../x", "..", ".", "/etc/passwd", "..\\x", "~/x", "a\0b", ".hidden", "", "é/.."]
)
def test_none_leaves_its_folder(name: str, tmp_path: Path) -> None:
    (chosen,) = file_names([name])
    file = tmp_path / f"{chosen}.mp4"
    file.touch()
    assert file.resolve().parent == tmp_path.resolve()
    assert not chosen.startswith((".", "~"))
    assert len(chosen) <= 255
