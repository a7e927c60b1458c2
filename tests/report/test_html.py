"""The page of `rllib-ezm report --html`, read as text and in a real browser."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers.tune_results import write_trial

from rllib_ezm.cli.main import main
from rllib_ezm.report import html

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("rliable") is None, reason="needs the extra `report`"
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), "")
NEEDS_CHROMIUM = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
EVIL = "../../<img src=x onerror=document.title='owned'>$x_$"
WALK = "dmc:walker-walk"


class Page(HTMLParser):
    """The elements of a page, and the text of those of one name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")

    def handle_data(self, data: str) -> None:
        if self.elements and data.strip():
            self.texts[self.elements[-1][0]][-1] += data

    def attributes(self, tag: str, name: str) -> list[str]:
        return [attrs.get(name) or "" for found, attrs in self.elements if found == tag]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two settings; a task, a setting and a command that are markup, and three videos."""
    folder = tmp_path / "runs"
    for name, lr, level in (("fast", 1e-3, 80.0), ("slow", 1e-4, 40.0)):
        returns = {task: list(np.linspace(0, level, 6)) for task in (WALK, EVIL)}
        note = f"<b>{name}</b>"
        trial = write_trial(folder / name / "t", returns, config={"lr": lr, "note": note})
        (trial / "episode.mp4").write_bytes(b"mp4 of " + name.encode())
        command = f"rllib train file {name}.py --set 'a=<b>1</b>'"
        (folder / name / "rllib_run.json").write_text(json.dumps({"commands": [command]}))
    (folder / "fast" / "videos").mkdir()
    (folder / "fast" / "videos" / "a&b.mp4").write_bytes(b"x" * 100)
    return folder


def write(runs: Path, out: Path, *options: str) -> str:
    assert main(["report", str(runs), "--out", str(out), "--html", *options]) == 0
    return (out / "report.html").read_text(encoding="utf-8")


def test_the_page_holds_everything_and_loads_nothing(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = write(runs, tmp_path / "out")
    assert capsys.readouterr().out == f"Report: {tmp_path / 'out' / 'report.html'}\n"
    page = Page(text)
    assert {"script", "link", "iframe", "b"}.isdisjoint(tag for tag, _ in page.elements)
    sources = page.attributes("img", "src") + page.attributes("video", "src")
    assert len(page.attributes("img", "src")) == 4
    assert len(page.attributes("video", "src")) == 3
    assert all(source.startswith("data:") for source in sources)
    assert "default-src 'none'" in page.attributes("meta", "content")[1]
    cells = page.texts["td"]
    assert cells.count(WALK) == 2
    assert cells.count(EVIL) == 2
    assert cells[cells.index("lr") :][:3] == ["lr", "0.001", "0.0001"]
    assert cells[cells.index("note") :][:3] == ["note", "<b>fast</b>", "<b>slow</b>"]
    assert page.texts["pre"] == [
        f"rllib train file {name}.py --set 'a=<b>1</b>'" for name in ("fast", "slow")
    ]
    assert page.texts["figcaption"] == ["fast/t: episode", "fast: a&b", "slow/t: episode"]
    assert str(tmp_path) not in text


def test_videos_beyond_the_limit_lie_beside_the_page_under_numbers(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "MAX_EMBEDDED", 50)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "more.mp4").write_bytes(b"more")
    out = tmp_path / "out"
    page = Page(write(runs, out, "--videos", str(elsewhere)))
    sources = page.attributes("video", "src")
    assert [source[:5] for source in sources] == ["data:", "video", "data:", "data:"]
    assert sources[1] == "videos/001.mp4"
    assert (out / sources[1]).read_bytes() == b"x" * 100
    assert page.texts["figcaption"][-1] == "elsewhere: more"


def test_without_videos_and_commands_the_page_says_so(tmp_path: Path) -> None:
    write_trial(tmp_path / "one" / "t", {WALK: [1.0, 2.0]})
    text = write(tmp_path / "one", tmp_path / "out")
    assert "not recorded" in text
    assert "--video EXPERIMENT/videos" in text
    assert "None but the seed." in text


def test_videos_without_a_page_are_a_mistake(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(runs), "--videos", str(runs)]) == 2
    assert "add --html" in capsys.readouterr().err


def browse(page: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page in a browser that finds no host."""
    return subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=1200,6000",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


@NEEDS_CHROMIUM
def test_a_browser_shows_the_page(runs: Path, tmp_path: Path) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    write(runs, tmp_path / "out")
    picture = tmp_path / "page.png"
    page = tmp_path / "out" / "report.html"
    console = browse(page, tmp_path, f"--screenshot={picture}").stderr
    assert re.findall(r"CONSOLE.*", console) == []  # no refused source, no error
    pixels = imread(picture)[..., :3]
    for color in ("#0072B2", "#D55E00"):  # the curves of both variants
        assert (np.abs(pixels - to_rgb(color)).max(axis=-1) < 0.02).sum() > 200, color
    shown = Page(browse(page, tmp_path, "--dump-dom").stdout)
    assert shown.texts["title"] == ["Report"]  # no name has become markup
    assert shown.texts["td"].count(EVIL) == 2
    assert all(source.startswith("data:") for source in shown.attributes("img", "src"))
