"""Pictures as SVG: one file for light and dark pages, which asks no host for anything and has words to be read."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from builder.check.pictures.plot import TICKS, Plot, Points, Ratio, number, scale
from builder.lock.tree import Branch
from builder.report import sanitized

_WIDTH = 472  # with the edges 504: on the 360 of a phone, 14 px are 10
_LINE, _STEP, _LETTER = 22, 22, 8.45  # of a tree: a line's height, a level's indent, a letter of 14 px
_TITLE_LETTER = 9.5  # of 16 px, bold, and not of one width: more than most
_LEFT, _HEIGHT = 64, 140  # of a plot: room for numbers, and height
_ROW = 66  # of a ratio


class Part(NamedTuple):
    """A drawing of a picture, and the room that it takes; `form` is its macro in the template."""

    form: str
    width: float
    height: float
    values: Mapping[str, Any]


def document(title: str, description: str, parts: Sequence[Part]) -> str:
    """The text of a file with drawings below each other."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names and values come from outside
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: sanitized(value) if type(value) is str else value,  # not what is SVG already
    )
    width = max(_WIDTH, _columns(title) * _TITLE_LETTER, *(part.width for part in parts))
    top, placed = 52.0, []
    for part in parts:
        placed.append({"form": part.form, "top": top, **part.values})
        top += part.height
    return environment.get_template("picture.svg.j2").render(
        title=title, description=description, parts=placed, width=math.ceil(width) + 32, height=math.ceil(top) - 10
    )


# --- trees ---------------------------------------------------------------------------------------------------------


def tree(top: Branch) -> Part:
    """A tree, with lines from each branch to those below it."""
    rows = list(_rows(top, 0))
    lines = []
    last: dict[int, int] = {}  # of each depth, the last line so far
    for index, (depth, _) in enumerate(rows):
        last[depth] = index
        if depth:
            lines.append({"x": (depth - 1) * _STEP + 6, "from": last[depth - 1] * _LINE + 8, "to": index * _LINE})
    texts = [
        {"x": depth * _STEP, "y": index * _LINE, "text": one.text, "kind": one.kind}
        for index, (depth, one) in enumerate(rows)
    ]
    width = max(depth * _STEP + _columns(one.text) * _LETTER for depth, one in rows)
    return Part("tree", width, len(rows) * _LINE + 4, {"lines": lines, "texts": texts})


def _rows(branch: Branch, depth: int) -> Iterator[tuple[int, Branch]]:
    yield depth, branch
    for one in branch.below:
        yield from _rows(one, depth + 1)


def _columns(text: str) -> int:
    """How many letters wide a text is: those of East Asia are two (Unicode TR 11)."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in sanitized(text))


# --- curves --------------------------------------------------------------------------------------------------------


def plot(found: Plot, width: float = _WIDTH) -> Part:
    """Curves, with the numbers of their highest and lowest."""
    names = [curve.name for curve in found.curves] if len(found.curves) > 1 else []
    values = {
        **geometry(found, width=width, height=_HEIGHT, left=_LEFT),
        "title": found.title,
        "names": names,
        "ends": found.ends,
        "width": width,
        "height": _HEIGHT,
        "left": _LEFT,
        "above": 24 + 20 * len(names),
    }
    return Part("plot", width, _HEIGHT + 60 + 20 * len(names), values)


def geometry(found: Plot, *, width: float, height: float, left: float) -> dict[str, Any]:
    """Where the curves of a plot are, and its numbers, in a box whose origin is at its left and top.

    >>> from builder.check.pictures.plot import Curve
    >>> found = geometry(Plot("loss", [Curve("", [(0, 2.0), (10, 1.0)])], ("", "")), width=640, height=148, left=72)
    >>> found["curves"], [mark["text"] for mark in found["marks"]]
    (['72.0,8.0 640.0,148.0'], ['2', '1.5', '1'])
    """
    first, last, low, high = found.box

    def y(value: float) -> float:
        return round(8 + (high - value) / (high - low) * (height - 8), 1)

    def line(points: Points) -> str:
        across = (width - left) / (last - first)
        return " ".join(f"{left + (x - first) * across:.1f},{y(value)}" for x, value in points)

    marks = [{"y": y(value), "text": number(value)} for value in (high, (high + low) / 2, low)]
    return {"curves": [line(curve.points) for curve in found.curves], "marks": marks}


# --- bars ----------------------------------------------------------------------------------------------------------


class Bar(NamedTuple):
    """A bar: how much of `whole` is its own, and in words."""

    what: str
    own: float
    whole: float
    words: str


def bars(found: Sequence[Bar], own: str, shared: str) -> Part:
    """Bars below each other, with the names of their two parts."""
    most = max(bar.whole for bar in found) or 1
    rows = [
        {
            "what": bar.what,
            "words": bar.words,
            "own": round(bar.own / most * _WIDTH, 1),
            "whole": round(bar.whole / most * _WIDTH, 1),
            "y": number * 56,
        }
        for number, bar in enumerate(found)
    ]
    return Part("bars", _WIDTH, len(rows) * 56 + 28, {"rows": rows, "names": (own, shared), "bottom": len(rows) * 56})


# --- ratios --------------------------------------------------------------------------------------------------------


def ratios(found: Sequence[Ratio]) -> Part:
    """Ratios on a line of their logarithms: each pair a dot, the interval and the median."""
    first, last = scale(found)

    def x(ratio: float) -> float:
        return round((math.log(ratio) - first) / (last - first) * _WIDTH, 1)

    rows = [
        {
            "what": one.what,
            "verdict": one.verdict,
            "y": number * _ROW,
            "dots": [x(ratio) for ratio in one.each],
            "low": x(one.low),
            "high": x(one.high),
            "median": x(one.median),
            "ratio": f"{one.median:.2f}",
        }
        for number, one in enumerate(found)
    ]
    ticks = [{"x": x(tick), "text": f"{tick:g}"} for tick in TICKS if first <= math.log(tick) <= last]
    values = {"rows": rows, "ticks": ticks, "one": x(1), "bottom": len(rows) * _ROW, "width": _WIDTH}
    return Part("ratios", _WIDTH, len(rows) * _ROW + 28, values)
