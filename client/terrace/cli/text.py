"""Text of other people on a terminal: names, messages and reasons may hold anything, and must not steer the terminal.

Owns `printable`, and the difference between a terminal and a pipe: a grid is a Rich table on a terminal, and aligned columns without
frames, colours or cuts in a pipe. Does not own what stands in the columns (tables.py). Logs are written as they came.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

_GAP = "  "


def printable(text: str) -> str:
    """Return the text with control characters, line breaks included, shown as escapes."""
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in text)


@dataclass
class Grid:
    """Rows of text under column names. Columns named in `right` are aligned to the right."""

    columns: Sequence[str]
    right: frozenset[str] = frozenset()
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add a row."""
        self.rows.append([printable(cell) for cell in cells])


def write(text: str) -> None:
    """Write a line of text to standard output."""
    sys.stdout.write(text + "\n")


def write_now(text: str) -> None:
    """Write text as it came and let the reader see it at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_grid(grid: Grid) -> None:
    """Write a grid as suits standard output."""
    if sys.stdout.isatty():
        _write_rich(grid)
        return
    for line in plain_lines(grid):
        write(line)


def plain_lines(grid: Grid) -> list[str]:
    """Return a grid as aligned lines, the names in capitals."""
    table = [[name.upper() for name in grid.columns], *grid.rows]
    widths = [max(len(row[position]) for row in table) for position in range(len(grid.columns))]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if name in grid.right else cell.ljust(width)
            for cell, width, name in zip(row, widths, grid.columns, strict=True)
        ]
        lines.append(_GAP.join(cells).rstrip())
    return lines


def _write_rich(grid: Grid) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in grid.columns:
        table.add_column(name.upper(), justify="right" if name in grid.right else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in row))
    Console().print(table)


STATE_STYLES = {
    "succeeded": "green",
    "ready": "green",
    "healthy": "green",
    "running": "cyan",
    "starting": "cyan",
    "queued": "yellow",
    "held": "magenta",
    "cordoned": "yellow",
    "draining": "yellow",
    "failed": "red",
    "lost": "red",
    "faulty": "red",
    "quarantined": "red",
    "cancelled": "dim",
}
