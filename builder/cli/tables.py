"""Tables: with headings and within the width on a terminal, one line a row elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from textwrap import wrap
from typing import TypedDict

import click

from builder.cli.common import columns
from builder.report import is_coloured


class _Words(TypedDict):
    break_on_hyphens: bool
    break_long_words: bool


_WORDS: _Words = {"break_on_hyphens": False, "break_long_words": False}  # a path that is cut cannot be copied
_NARROWEST = 24  # of the last column: where less is left, its text goes below the row


def show_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Print rows on stdout, the last column as wide as the terminal allows; columns with a heading in `right` are
    numbers. Nothing where there are no rows.
    """
    if not rows:
        return
    terminal = sys.stdout.isatty()
    # A shell may have exported COLUMNS: what goes into a pipe is data all the same, a line a row.
    width = columns() if terminal else None
    numbers = {headings.index(heading) for heading in right}
    head, *body = _rendered(headings if terminal else (), rows, width, numbers)
    if not terminal:
        head = []
    elif is_coloured(sys.stdout):
        head = [bold(line) for line in head]
    click.echo("\n".join([*head, *(line for row in body for line in row)]), color=True)


def bold(text: str) -> str:
    """A heading, as a terminal shows it (ECMA-48, SGR)."""
    return f"\x1b[1m{text}\x1b[0m"


def flowing(text: str, indent: int) -> str:
    """A line of words as a terminal is to have it: broken between words, `indent` columns in from the second line on.
    Elsewhere it stays a line.
    """
    width = columns()
    if not sys.stdout.isatty() or len(text) < width:
        return text
    start = text[: len(text) - len(text.lstrip())]
    parts = wrap(text.strip(), max(width - 1, 24), initial_indent=start, subsequent_indent=" " * indent, **_WORDS)
    return "\n".join(parts)


def render(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, numbers: Collection[int] = ()
) -> list[str]:
    """The lines of a table; a `width` of None is without limit. A column with nothing in it is left out.

    >>> render(["NAME", "WHAT"], [["a", "it is long"], ["bb", ""]], 30)
    ['NAME  WHAT', 'a     it is long', 'bb']
    >>> render([], [["name", "for what it is for and more"]], 31)
    ['name  for what it is for and', '      more']
    >>> render([], [["9", "", "a"], ["10", "", "b"]], None, {0})
    [' 9  a', '10  b']
    >>> render([], [["20261126", "done", "41 min", "loss 1.92"]], 20)
    ['20261126  done', '    41 min  loss', '    1.92']
    >>> render([], [["1.0 MB", "a-key-of-many-letters"]], 26)
    ['1.0 MB', '    a-key-of-many-letters']
    >>> render([], [["a-name", "a path"], ["b", "/home/you/.config/drydock"]], 32)
    ['a-name  a path', 'b', '    /home/you/.config/drydock']
    """
    whole = _rendered(headings, rows, width, numbers)
    return [line for row in (whole if headings else whole[1:]) for line in row]


def _rendered(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, numbers: Collection[int]
) -> list[list[str]]:
    """The lines of the headings, then those of each row."""
    filled = [column for column in range(len(rows[0])) if any(row[column] for row in rows)]
    whole = [[row[column] for column in filled] for row in [headings or [""] * len(rows[0]), *rows]]
    aligned = ["rjust" if column in numbers else "ljust" for column in filled]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    if width is None:
        return [[_joined(row, widths, aligned)] for row in whole]
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    is_beside = width - before >= min(_NARROWEST, widths[-1] + 1)
    first = len(widths) - 1 if is_beside else _fitting(widths, width)
    indent = before if is_beside else 4
    lines: list[list[str]] = []
    for row in whole:
        start, rest = _joined(row[:first], widths, aligned), "  ".join(filter(None, row[first:]))
        parts = wrap(rest, max(width - indent - 1, 12), **_WORDS)
        if any(len(part) >= width - indent for part in parts):  # a path, or a key
            lines.append([start, *(f"    {part}" for part in wrap(rest, max(width - 5, 12), **_WORDS))])
            continue
        if is_beside and parts:
            start = f"{start:<{indent}}{parts.pop(0)}"
        lines.append([start.rstrip(), *(f"{' ' * indent}{part}" for part in parts)])
    return lines


def _joined(row: Sequence[str], widths: Sequence[int], aligned: Sequence[str]) -> str:
    """Cells beside each other."""
    cells = zip(row, widths, aligned, strict=False)
    return "  ".join(str(getattr(cell, how)(size)) for cell, size, how in cells).rstrip()


def _fitting(widths: Sequence[int], width: int) -> int:
    """How many columns, but for the last, fit beside each other; one at least."""
    count = len(widths) - 1
    while count > 1 and sum(widths[:count]) + 2 * (count - 1) >= width:
        count -= 1
    return count


def megabytes(size: int) -> str:
    """A size in bytes as tables and messages have it.

    >>> megabytes(1_234_567)
    '1.2 MB'
    """
    return f"{size / 1e6:.1f} MB"
