"""The Markdown files: short lines, links to files that exist, names of modules that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONGEST_LINE = 140
LONGEST_README = 150
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"\s*(```|~~~)")
MODULE = re.compile(r"\brllib_ezm(?:\.\w+)+")
GENERATED = re.compile(r"results/.+/report\.md")
"""Written by `rllib-ezm report`, which does not wrap lines."""


def markdown_files(root: Path = ROOT) -> list[Path]:
    """The files that are under version control, or will be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        names = listed.stdout.splitlines()
    else:  # a copy without .git, as in `.ci/run`
        hidden = re.compile(r"(^|/)(\.|site/|build/)")
        paths = [path.relative_to(root).as_posix() for path in root.rglob("*.md")]
        names = [path for path in paths if not hidden.search(path)]
    return sorted(root / name for name in names if (root / name).is_file())


def prose(text: str) -> list[tuple[int, str]]:
    """Numbered lines outside fenced code blocks."""
    lines, fenced = [], False
    for number, line in enumerate(text.splitlines(), start=1):
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            lines.append((number, line))
    return lines


def too_long(text: str) -> list[int]:
    """Numbers of the lines that could be wrapped and are not: no table, not one long link."""
    return [
        number
        for number, line in prose(text)
        if len(line) > LONGEST_LINE
        and not line.lstrip().startswith("|")
        and max(map(len, line.split())) <= LONGEST_LINE - 20
    ]


def broken_links(file: Path) -> list[str]:
    """Relative links of a Markdown file to what does not exist."""
    links = [link for _, line in prose(file.read_text()) for link in LINK.findall(line)]
    relative = [link for link in links if not re.match(r"[a-z]+:|#", link)]
    return [link for link in relative if not (file.parent / link.partition("#")[0]).exists()]


def missing_modules(text: str) -> list[str]:
    """Dotted names that are neither a module of the package nor a name that one defines."""
    return [name for name in sorted(set(MODULE.findall(text))) if not exists(name)]


def exists(name: str) -> bool:
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if source.is_file():
            names = parts[count:]
            return not names or (
                # A module's attribute, and possibly an attribute of that: the first is looked up.
                len(names) <= 2
                and re.search(rf"\b{re.escape(names[0])}\b", source.read_text()) is not None
            )
    return False


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= LONGEST_README


@pytest.mark.parametrize("file", markdown_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_markdown(file):
    text = file.read_text()
    if not GENERATED.fullmatch(file.relative_to(ROOT).as_posix()):
        assert not too_long(text)
    assert not broken_links(file)
    if file.name != "CHANGELOG.md":  # names old modules on purpose
        assert not missing_modules(text)


def test_a_long_line_is_found_but_not_in_tables_and_code():
    long = "word " * 30
    assert too_long(f"short\n{long}\n") == [2]
    assert not too_long(f"| {long} |\n```\n{long}\n```\n[name](https://{'x' * 150})\n")


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("[here](page.md#part) [gone](gone.md) [web](https://a.b) [up](#part)\n")
    assert broken_links(page) == ["gone.md"]


def test_a_missing_module_is_found():
    text = "`rllib_ezm.search.gumbel`, `rllib_ezm.search.halving.Round`, `rllib_ezm.searches.x`"
    assert missing_modules(text) == ["rllib_ezm.searches.x"]
    assert missing_modules("rllib_ezm.search.no_such_name") == ["rllib_ezm.search.no_such_name"]
