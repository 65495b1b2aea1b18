"""Tables: with headings and within the width on a terminal, one line a row elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from textwrap import wrap

import click

from builder.report import is_coloured

_NARROWEST = 24  # of the last column: where less is left, its text goes below the row


def show_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows on stdout, the last column as wide as the terminal allows."""
    terminal = sys.stdout.isatty()
    # A shell may have exported COLUMNS: what goes into a pipe is data all the same, a line a row.
    width = shutil.get_terminal_size().columns if terminal else None
    lines = render(headings if terminal else (), rows, width)
    if terminal and is_coloured(sys.stdout):
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    click.echo("\n".join(lines), color=True)


def render(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """The lines of a table; a `width` of None is without limit.

    >>> render(["NAME", "WHAT"], [["a", "it is long"], ["bb", ""]], 30)
    ['NAME  WHAT', 'a     it is long', 'bb']
    >>> render([], [["name", "for what it is for and more"]], 31)
    ['name  for what it is for and', '      more']
    """
    whole = [list(row) for row in ([headings] if headings else [])] + [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)][:-1] if whole else []
    before = sum(widths) + 2 * len(widths)
    below = width is not None and width - before < _NARROWEST
    indent = 4 if below else before
    lines: list[str] = []
    for row in whole:
        start = "".join(f"{cell:<{size}}  " for cell, size in zip(row[:-1], widths, strict=True))
        parts = (
            [row[-1]] if width is None else wrap(row[-1], max(width - indent - 1, 20), break_on_hyphens=False) or [""]
        )
        if below:
            lines.append(start.rstrip())
            lines += [f"{' ' * indent}{part}" for part in parts if part]
        else:
            lines.append(f"{start}{parts[0]}".rstrip())
            lines += [f"{' ' * indent}{part}" for part in parts[1:]]
    return lines
