from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from rllib_ezm.utils.ownership import warn_of_other_owner


def test_it_warns_once_of_a_folder_of_somebody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = os.geteuid()
    warn_of_other_owner(tmp_path)
    assert caplog.text == ""
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 2)  # now it is somebody else's
    for _ in range(2):
        warn_of_other_owner(tmp_path)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    import pwd

    assert f"{tmp_path} belongs to another user ({pwd.getpwuid(mine).pw_name})" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_single_pickle_of_somebody_else_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "inside" / "state.pkl"
    file.parent.mkdir()
    file.write_bytes(b"")
    os.chown(file, 54321, 54321)
    warn_of_other_owner(tmp_path)
    assert "another user (user id 54321)" in caplog.text
