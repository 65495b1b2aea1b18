"""Answers as pictures: on a terminal, and with --svg as a file. A pipe gets plain text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli.common import columns, reporter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from builder.check.pictures.plot import Plot
    from builder.check.pictures.terminal import Marks
    from builder.lock.diff import Block
    from builder.lock.tree import Branch

_WIDEST = 100  # columns of a picture: a curve is not read better for more

# How colour shows the kinds of lines (ECMA-48, SGR); signs say the same without.
_STYLES = {"head": "1", "found": "1;32", "quiet": "2", "added": "32", "removed": "31", "changed": "33"}


def _is_free(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    """The file, where it can be new: said before a measurement of minutes."""
    from builder.errors import UsageError
    from builder.files import is_there

    if value is not None and value.suffix != ".svg":
        raise UsageError(f"{value} is not an .svg file", hint="--svg x.svg")
    if value is not None and is_there(value):
        raise UsageError(f"{value} already exists", hint="move it away, or name another file: --svg x.svg")
    return value


svg_option = click.option(
    "--svg",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    callback=_is_free,
    help="Draw it into a new SVG file.",
)


def write_svg(path: Path, text: str) -> None:
    """Write a picture, and say so."""
    from builder.files import write_new

    write_new(path, text)
    reporter().step(f"drawn: {path}")


def is_terminal() -> bool:
    """Whether somebody looks at what is printed."""
    return sys.stdout.isatty()


def is_unicode() -> bool:
    """Whether what is printed may have characters other than those of ASCII."""
    return "utf" in (getattr(sys.stdout, "encoding", "") or "").lower()


def width() -> int:
    """The columns of a picture."""
    return min(columns(), _WIDEST)


def marks() -> Marks:
    """The characters to draw with."""
    from builder.check.pictures.terminal import ASCII, UNICODE

    return UNICODE if is_unicode() else ASCII


def painted(text: str, kind: str) -> str:
    """A text that may come from outside, coloured by its kind where stdout is to be."""
    from builder.report import is_coloured, sanitized

    is_painted = kind in _STYLES and is_coloured(sys.stdout)
    return f"\x1b[{_STYLES[kind]}m{sanitized(text)}\x1b[0m" if is_painted else sanitized(text)


def show_tree(top: Branch) -> None:
    """Print a tree."""
    from builder.lock.tree import ASCII, UNICODE

    for lead, branch in top.drawn(UNICODE if is_unicode() else ASCII):
        click.echo(lead + painted(branch.text, branch.kind), color=True)


def show_changes(head: str, blocks: Iterable[Block]) -> None:
    """Print what differs: a table for each part, with the sign of each change in colour too."""
    from builder.cli.tables import render
    from builder.lock.diff import MARK

    kinds = {mark: kind for kind, mark in MARK.items()}
    click.echo(painted(head, "head"), color=True)
    for block in blocks:
        click.echo(painted(block.title, "head"), color=True)
        rows = [(f"{MARK[row.kind]} {row.name}".strip(), row.grown, row.short) for row in block.rows]
        numbers = {1} if any(row.grown for row in block.rows) else ()
        for line in render((), rows, columns() - 2, numbers):
            click.echo(f"  {painted(line[:1], kinds.get(line[:1], ''))}{painted(line[1:], '')}", color=True)


def show_plots(plots: Sequence[Plot]) -> None:
    """Print plots below each other."""
    from builder.check.pictures.terminal import curves
    from builder.report import is_coloured

    for plot in plots:
        click.echo()
        lines = curves(plot, width(), marks(), is_coloured=is_coloured(sys.stdout))
        click.echo("\n".join(lines), color=True)
