"""Curves, bars and intervals in characters.

Own, because a command may become 10 ms slower for its look, and importing plotext 6.1 takes 160, plotille 6.0 takes 40
(docs/decisions/0012).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from builder.check.pictures.plot import TICKS, Plot, Points, Ratio, number, scale

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille character, by row and column
_DASH = 3  # dots of a dash, and of the gap after it
_COLOURS = ("36", "35")  # of the curves of a plot (ECMA-48, SGR)


class Marks(NamedTuple):
    """The characters that pictures are drawn with; without `curves` a curve is made of dots, eight to a character."""

    curves: str
    side: str
    tick: str
    corner: str
    below: str
    own: str
    shared: str
    one: str
    pair: str
    interval: str
    median: str


UNICODE = Marks("", "│", "┤", "└", "─", "█", "░", "│", "·", "━", "●")
ASCII = Marks("*o", "|", "+", "+", "-", "#", ".", "|", ".", "=", "o")


def bar(own: int, whole: int, most: int, width: int, marks: Marks) -> str:
    """A bar of at most `width`, which `most` would fill: the part that is `own`, and the rest of `whole`.

    >>> bar(1, 4, 8, 8, ASCII), bar(0, 8, 8, 8, ASCII), bar(1, 1, 1000, 8, ASCII)
    ('#...', '........', '#')
    """
    length = max(1, round(whole / most * width)) if whole else 0
    filled = min(length, max(1, round(own / most * width))) if own else 0
    return marks.own * filled + marks.shared * (length - filled)


def curves(plot: Plot, width: int, marks: Marks, *, is_coloured: bool) -> list[str]:
    """The lines of a plot: its title, the curves, an axis, and what is below it."""
    height = plot.lines
    left, right, low, high = plot.box
    labels = {0: number(high), height // 2: number((high + low) / 2), height - 1: number(low)}
    margin = max(map(len, labels.values()))
    columns = max(8, width - margin - 3)
    across, down = (1, 1) if marks.curves else (2, 4)
    cells: dict[tuple[int, int], tuple[int, int]] = {}

    def place(point: tuple[float, float]) -> tuple[int, int]:
        x = (point[0] - left) / (right - left) * (columns * across - 1)
        return round(x), round((high - point[1]) / (high - low) * (height * down - 1))

    for index, curve in enumerate(plot.curves):
        for x, y in _line(curve.points, place):
            # Without colour a second curve is told from the first by its gaps.
            if not marks.curves and index and x // _DASH % 2:
                continue
            cell = (y // down, x // across)
            dots, _ = cells.get(cell, (0, index))
            cells[cell] = (dots | (_DOTS[y % down][x % across] if not marks.curves else 1), index)

    lines = [_legend(plot, marks, is_coloured=is_coloured)]
    for row in range(height):
        last = max((column for line, column in cells if line == row), default=-1)
        found = [cells.get((row, column), _NOTHING) for column in range(last + 1)]
        text = "".join(
            _run(run, index, marks, is_coloured=is_coloured) for index, run in groupby(found, lambda cell: cell[1])
        )
        label, edge = labels.get(row, ""), marks.tick if row in labels else marks.side
        lines.append(f"{label:>{margin}} {edge}{text}")
    lines.append(f"{'':{margin}} {marks.corner}{marks.below * columns}")
    first, last_text = plot.ends
    lines.append(f"{'':{margin}}  {first}{last_text:>{max(columns - len(first), len(last_text) + 1)}}")
    return lines


_NOTHING = (0, -1)  # a cell without a dot, of no curve


def _run(cells: Iterator[tuple[int, int]], index: int, marks: Marks, *, is_coloured: bool) -> str:
    """Cells of one curve beside each other."""
    if index < 0:
        return " " * len(list(cells))
    text = "".join(marks.curves[index] if marks.curves else chr(0x2800 + dots) for dots, _ in cells)
    return _painted(text, index, is_coloured=is_coloured)


def _line(points: Points, place: Callable[[tuple[float, float]], tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Every dot of the straight lines between points."""
    dots = [place(point) for point in points]
    for (x, y), (to_x, to_y) in pairwise(dots):
        steps = max(abs(to_x - x), abs(to_y - y), 1)
        yield from ((round(x + (to_x - x) * i / steps), round(y + (to_y - y) * i / steps)) for i in range(steps + 1))


def _legend(plot: Plot, marks: Marks, *, is_coloured: bool) -> str:
    """The title, and which curve is whose where there are several."""
    title = f"\x1b[1m{plot.title}\x1b[0m" if is_coloured else plot.title
    if len(plot.curves) == 1:
        return title
    looks = [mark * 3 for mark in marks.curves] if marks.curves else ["───", "╌╌╌"]
    names = [
        _painted(f"{looks[index]} {curve.name}", index, is_coloured=is_coloured)
        for index, curve in enumerate(plot.curves)
    ]
    return "  ".join((title, *names))


def _painted(text: str, index: int, *, is_coloured: bool) -> str:
    return f"\x1b[{_COLOURS[index]}m{text}\x1b[0m" if is_coloured else text


def intervals(rows: Sequence[Ratio], width: int, marks: Marks) -> list[str]:
    """Ratios on a line of their logarithms: each pair, the interval, and the median, with 1 marked."""
    margin = max(len(row.what) for row in rows)
    columns = max(20, width - margin - 3)
    first, last = scale(rows)

    def x(ratio: float) -> int:
        return round((math.log(ratio) - first) / (last - first) * (columns - 1))

    axis = ""
    for tick in TICKS:
        label = f"{tick:g}"
        if first <= math.log(tick) <= last and (at := x(tick) - len(label) // 2) > len(axis):
            axis = f"{axis:<{at}}{label}"
    lines = [f"{'':{margin}}  {axis}"]
    for row in rows:
        line = [" "] * columns
        line[x(1)] = marks.one
        for ratio in row.each:
            line[x(ratio)] = marks.pair
        for column in range(x(row.low), x(row.high) + 1):
            line[column] = marks.interval
        line[x(row.median)] = marks.median
        lines.append(f"{row.what:<{margin}}  {''.join(line)}".rstrip())
    return lines
