"""MkDocs hook: pages may link to files of the repository outside `docs/`, as on a code host.

Results, examples and the Markdown files of the repository's root are added to the site under
`files/`, and relative links between them and the pages are rewritten, so that every picture and
table is committed once and every link works in the repository and on the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
PATTERNS = (
    "*.md",
    "LICENSE",
    "pyproject.toml",
    "results/**/*",
    "tuned_examples/*.py",
    "benchmarks/*.py",
    "tests/oracles/*.py",
    "rllib_ezm/report/data/*.csv",
)
PREFIX = "files/"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)(?=[)#])")


def on_files(files: Any, config: Any) -> Any:
    """Add the repository's files to the site."""
    for pattern in PATTERNS:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file():
                name = PREFIX + path.relative_to(ROOT).as_posix()
                file = File.generated(config, name, abs_src_path=str(path))
                file.inclusion = InclusionLevel.NOT_IN_NAV
                files.append(file)
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Point relative links at where their files are on the site."""
    uri = page.file.src_uri
    folder = posixpath.dirname(uri)
    source = posixpath.dirname(uri[len(PREFIX) :] if uri.startswith(PREFIX) else f"docs/{uri}")

    def rewritten(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(source, match[1]))
        inside = target.startswith("docs/")
        target = target.removeprefix("docs/") if inside else PREFIX + target
        return posixpath.relpath(target, folder or ".")

    return LINK.sub(rewritten, markdown)
