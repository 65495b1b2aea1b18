"""A comparison as a picture: each pair a dot, the median and its interval, on a line of ratios."""

from __future__ import annotations

import math

from builder.check.bench.compare import Comparison
from builder.resources import shipped

_LEFT, _RIGHT, _TOP, _ROW = 190, 560, 64, 40
_TICKS = (0.1, 0.2, 0.25, 0.33, 0.5, 0.75, 1, 1.33, 2, 3, 4, 5, 10)


def draw(found: Comparison) -> str:
    """An SVG picture, for light and dark backgrounds alike."""
    from jinja2 import Environment, FileSystemLoader

    ratios = [ratio for one in found.measures for ratio in one.ratios]
    low, high = min(0.75, *ratios), max(1.33, *ratios)
    first, last = math.log(low) - 0.05, math.log(high) + 0.05

    def x(ratio: float) -> float:
        return round(_LEFT + (math.log(ratio) - first) / (last - first) * (_RIGHT - _LEFT), 1)

    rows = [
        {
            "what": one.what,
            "verdict": one.verdict,
            "y": _TOP + number * _ROW,
            "dots": [x(ratio) for ratio in one.ratios],
            "low": x(one.ratio.low),
            "high": x(one.ratio.high),
            "median": x(one.ratio.median),
            "ratio": f"{one.ratio.median:.2f}",
        }
        for number, one in enumerate(found.measures)
    ]
    ticks = [{"x": x(tick), "label": f"{tick:g}"} for tick in _TICKS if low <= tick <= high]
    environment = Environment(
        loader=FileSystemLoader(shipped("templates")), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("bench.svg.j2").render(
        found=found,
        rows=rows,
        ticks=ticks,
        one=x(1),
        top=_TOP,
        bottom=_TOP + len(rows) * _ROW,
        left=_LEFT,
        right=_RIGHT,
    )
