"""What a picture of curves shows: the losses of runs, and what they used. Pure; `terminal` and `svg` draw it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from builder.embedded.words import printable

Points = Sequence[tuple[float, float]]
_LARGEST = 1e300  # the difference of two such numbers is still one


class Curve(NamedTuple):
    """A curve, and the name that tells it from others of the same picture."""

    name: str
    points: Points


class Plot(NamedTuple):
    """Curves over one axis; `ends` are the texts below its two ends, `lines` its height on a terminal."""

    title: str
    curves: Sequence[Curve]
    ends: tuple[str, str]
    lines: int = 8

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The smallest and the largest of both coordinates: left, right, low, high; never empty."""
        xs, ys = zip(*(point for curve in self.curves for point in curve.points), strict=True)
        low, high = min(ys), max(ys)
        return min(xs), max(xs), *((low, high) if low < high else (low - 1, high + 1))


def points(rows: Sequence[Sequence[Any]], column: int = 1, scale: float = 1.0) -> list[tuple[float, float]]:
    """The points of a curve as records have it: a `column` of its rows over the first one; nothing that is no curve.

    >>> points([[0, 2.0], [10, float("nan")], [20], [30, 1.0]])
    [(0, 2.0), (30, 1.0)]
    >>> points([[0, 2.0]]), points([[5, 1.0], [5, 2.0]])
    ([], [])
    """
    found = [(row[0], row[column] * scale) for row in rows if len(row) > column and all(map(_is_number, row))]
    return found if len(found) > 1 and found[0][0] < found[-1][0] else []


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and -_LARGEST < value < _LARGEST


def plots(run: Mapping[str, Any], took: str) -> list[Plot]:
    """The curves of a run, as `status.collect.run` has it, which took so long: losses, memory, cores."""
    losses = {name: points(rows) for name, rows in run["curves"].items()}
    found = [
        Plot(printable(name), [Curve(name, curve)], _ends(name, curve, run)) for name, curve in losses.items() if curve
    ]
    use = run["use"]
    used = {"memory, MB": points(use, 2, 1e-6), "cores in use": points(use)}
    return [*found, *(Plot(name, [Curve(name, curve)], ("0", took), 5) for name, curve in used.items() if curve)]


def together(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Plot]:
    """The losses that both of two runs have, each pair on one plot."""
    found = []
    for name in one["curves"]:
        curves = [Curve(run["id"].rpartition("-")[2], points(run["curves"].get(name, ()))) for run in (one, other)]
        if all(curve.points for curve in curves):
            longest = max((curve.points for curve in curves), key=lambda some: some[-1][0])
            found.append(Plot(printable(name), curves, _ends(name, longest, one, other)))
    return found


def _ends(name: str, curve: Points, *runs: Mapping[str, Any]) -> tuple[str, str]:
    """What is below the ends of a loss: its first number, and how often it was printed; not every one has its point."""
    counts = (run["losses"].get(name, {}).get("count", 0) for run in runs)
    return f"{curve[0][0]:g}", f"printed {max(curve[-1][0], *counts):g} times"


def number(value: float) -> str:
    """A number beside an axis.

    >>> number(12345.6), number(0.123456)
    ('12,346', '0.123')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


class Ratio(NamedTuple):
    """A ratio that was measured in pairs: its median, the interval that has the true one, and each pair."""

    what: str
    median: float
    low: float
    high: float
    each: Sequence[float]
    verdict: str


TICKS = (0.1, 0.2, 0.25, 0.33, 0.5, 0.75, 1, 1.33, 2, 3, 4, 5, 10)


def scale(rows: Sequence[Ratio]) -> tuple[float, float]:
    """The logarithms of the smallest and the largest ratio of an axis with 1 on it."""
    ratios = [ratio for row in rows for ratio in row.each]
    return math.log(min(0.75, *ratios)) - 0.05, math.log(max(1.33, *ratios)) + 0.05
