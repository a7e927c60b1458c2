"""A report as one page that needs no network and no script: figures and videos are in it.

Whatever a user names (tasks, variants, settings, commands) is escaped, and no name becomes a path.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rllib_ezm.report.blocks import WORDS, Block, Figure, Heading, Items, Table
from rllib_ezm.report.runs import Trial

MAX_EMBEDDED = 40 * 2**20
"""Bytes of all videos in the page; those beyond are copied beside it."""

VIDEO_FOLDER = "videos"
POLICY = (
    "default-src 'none'; img-src data:; media-src data: 'self' file:; style-src 'unsafe-inline'"
)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e4e4e4; }
th.word, td.word { text-align: left; } thead th { border-bottom: 2px solid #999; }
code, pre { font: 13px/1.4 ui-monospace, monospace; background: #f4f4f4; border-radius: 3px; }
code { padding: .1rem .25rem; overflow-wrap: anywhere; }
pre { padding: .6rem .8rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; } figure { display: inline-block; margin: 0 1rem 1rem 0; }
video { width: 22rem; max-width: 100%; background: #000; }
figcaption { font-size: 13px; max-width: 22rem; }
"""


@dataclass(frozen=True)
class Video:
    """A recorded episode.

    Attributes:
        caption: Where it comes from and the name of its file, for people.
        file: The mp4.
    """

    caption: str
    file: Path


def find_videos(trials: Iterable[Trial], folders: Sequence[Path] = ()) -> list[Video]:
    """The mp4 files in the folders of the trials, in `videos/` of their experiments, and elsewhere.

    Args:
        trials: The trials of the report.
        folders: Further folders, as `rllib evaluate --video` writes them.
    """
    found: dict[Path, str] = {}
    for trial in trials:
        for file in sorted(trial.folder.rglob("*.mp4")):
            found.setdefault(file, f"{trial.experiment}/{trial.name}: {file.stem}")
        for file in sorted((trial.folder.parent / VIDEO_FOLDER).glob("*.mp4")):
            found.setdefault(file, f"{trial.experiment}: {file.stem}")
    for folder in folders:
        for file in sorted(folder.glob("*.mp4")):
            found.setdefault(file, f"{folder.name}: {file.stem}")
    return [Video(caption, file) for file, caption in found.items() if file.is_file()]


def write_page(
    file: Path, blocks: Sequence[Block], trials: Sequence[Trial], videos: Sequence[Video]
) -> None:
    """Write the page: the blocks, then the commands of the trials' experiments and the videos.

    Args:
        file: The page; the SVG files of the figures lie beside it.
        blocks: The report.
        trials: Its trials.
        videos: See `find_videos`.
    """
    title = next((b.text for b in blocks if isinstance(b, Heading) and b.level == 1), "Report")
    parts = [_block(block, file.parent) for block in blocks]
    parts += ["<h2>Commands</h2>", *_commands(trials), "<h2>Videos</h2>", *_videos(videos, file)]
    file.write_text(
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n",
        encoding="utf-8",
    )


def _block(block: Block, folder: Path) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{_inline(block.text)}</h{block.level}>"
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Figure):
        source = _data("image/svg+xml", folder / f"{block.name}.svg")
        return f'<p><img alt="{escape(block.name)}" src="{source}"></p>'
    if isinstance(block, Items):
        items = "".join(f"<li>{_inline(text)}</li>" for text in block.texts)
        return f"<ul>{items}</ul>" if items else "<p>None.</p>"
    return f"<p>{_inline(block.text)}</p>"


def _inline(text: str) -> str:
    """A sentence, escaped; what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _table(table: Table) -> str:
    columns = table.columns
    kinds = [' class="word"' if column in WORDS else "" for column in columns]
    head = "".join(f"<th{k}>{escape(c)}</th>" for c, k in zip(columns, kinds, strict=True))
    rows = []
    for row in table.rows:
        cells = ("" if row.get(column) is None else str(row[column]) for column in columns)
        line = "".join(f"<td{k}>{escape(c)}</td>" for c, k in zip(cells, kinds, strict=True))
        rows.append(f"<tr>{line}</tr>")
    body = "\n".join(rows)
    return (
        f'<div class="table"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def _commands(trials: Sequence[Trial]) -> list[str]:
    """What was typed for each experiment, as far as `rllib train file` has kept it."""
    experiments = {trial.folder.parent: trial for trial in trials}
    parts = []
    for trial in experiments.values():
        kept = escape("\n".join(trial.commands)) if trial.commands else "not recorded"
        parts.append(f"<h3>{escape(trial.experiment)}</h3>\n<pre>{kept}</pre>")
    return parts


def _videos(videos: Sequence[Video], page: Path) -> list[str]:
    if not videos:
        hint = "rllib evaluate CHECKPOINT --video EXPERIMENT/videos"
        return [f"<p>None in the folders of the runs. <code>{hint}</code> records some.</p>"]
    parts, left = [], MAX_EMBEDDED
    for index, video in enumerate(videos):
        size = video.file.stat().st_size
        if size <= left:
            left -= size
            source = _data("video/mp4", video.file)
        else:
            source = f"{VIDEO_FOLDER}/{index:03d}.mp4"
            (page.parent / VIDEO_FOLDER).mkdir(exist_ok=True)
            shutil.copyfile(video.file, page.parent / source)
        parts.append(
            f'<figure><video controls muted loop preload="metadata" src="{source}"></video>'
            f"<figcaption>{escape(video.caption)}</figcaption></figure>"
        )
    return parts


def _data(kind: str, file: Path) -> str:
    """The content of a file as a URL."""
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
