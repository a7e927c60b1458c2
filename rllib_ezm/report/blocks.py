"""What a report consists of, and how it is written as Markdown; `html` writes it as a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

WORDS = {"task", "variant", "experiment", "method", "source", "setting"}
"""Columns of words, to the left; numbers stand to the right."""


@dataclass(frozen=True)
class Heading:
    """The title of a section; level 1 is that of the report."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph; `code` between backticks."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows as dicts of column to value; None is an empty cell."""

    rows: Sequence[Mapping[str, Any]]

    @property
    def columns(self) -> list[str]:
        """The columns of all rows, in the order of their first use."""
        return list(dict.fromkeys(column for row in self.rows for column in row))


@dataclass(frozen=True)
class Figure:
    """A figure that lies beside the report as NAME.png and NAME.svg."""

    name: str


@dataclass(frozen=True)
class Items:
    """A list of sentences; "None." if it is empty."""

    texts: Sequence[str]


Block: TypeAlias = Heading | Text | Table | Figure | Items


def to_markdown(blocks: Iterable[Block]) -> str:
    """The blocks as Markdown, figures as links to their PNG files."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Table):
        return _markdown_table(block)
    if isinstance(block, Figure):
        return f"![{block.name}]({block.name}.png)"
    if isinstance(block, Items):
        return "\n".join(f"* {text}" for text in block.texts) or "None."
    return block.text


def _markdown_table(table: Table) -> str:
    """Numbers to the right, None as an empty cell."""
    columns = table.columns
    lines = [
        "| " + " | ".join(columns) + " |",
        "|" + "|".join("---" if column in WORDS else "---:" for column in columns) + "|",
    ]
    for row in table.rows:
        cells = ("" if row.get(column) is None else str(row[column]) for column in columns)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
