"""The status as one HTML page that asks no other host for anything: served live, or kept as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from builder.report import said, span

_WIDTH, _HEIGHT = 640, 160  # of a picture, in its own units
_LEFT, _BELOW = 72, 12  # room for numbers, and below the lowest


def page(data: Mapping[str, Any], *, nonce: str = "", every: float = 0) -> str:
    """The page of what `collect` returns; with `every` it asks for itself again after so many seconds."""
    return _render("status.html.j2", data=data, nonce=nonce, every=every, title="Drydock on this machine")


def run_page(run: Mapping[str, Any]) -> str:
    """The page of one run."""
    return _render("run.html.j2", run=run, title=f"{run['name']}, run {run['id']}")


def _render(name: str, **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # all of it comes from outside: a note, an argument, the name of a host
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: said(value) if type(value) is str else value,  # not what is HTML already
    )
    environment.filters.update(span=_span, day=_day, picture=picture, gb=lambda size: f"{size / 1e9:.1f} GB")
    return environment.get_template(name).render(**values)


def _span(run: Mapping[str, Any]) -> str:
    """How long a run took, or has taken."""
    if run["state"] != "running" and not run["ended"]:
        return "its end was not seen"
    try:
        end = datetime.fromisoformat(run["ended"]) if run["ended"] else datetime.now().astimezone()
        return span(max(0.0, (end - datetime.fromisoformat(run["started"])).total_seconds()))
    except (TypeError, ValueError):
        return ""


def _day(text: str) -> str:
    return text[:19].replace("T", " ")


def picture(rows: Sequence[Sequence[float]], column: int = 1, scale: float = 1.0) -> dict[str, Any] | None:
    """A line through the points of a curve, for an SVG: `column` of its rows over the first one.

    >>> found = picture([[0, 2.0], [10, 1.0]])
    >>> found["points"], [mark["text"] for mark in found["marks"]], found["ends"]
    ('72.0,8.0 640.0,148.0', ['2', '1.5', '1'], (0, 10))
    >>> picture([[0, 2.0]]) is None
    True
    """
    points = [(row[0], row[column] * scale) for row in rows if len(row) > column]
    if len(points) < 2 or points[0][0] == points[-1][0]:
        return None
    first, last = points[0][0], points[-1][0]
    values = [value for _, value in points]
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 1, high + 1

    def height(value: float) -> float:
        return round(8 + (high - value) / (high - low) * (_HEIGHT - _BELOW - 8), 1)

    across = (_WIDTH - _LEFT) / (last - first)
    line = " ".join(f"{_LEFT + (x - first) * across:.1f},{height(value)}" for x, value in points)
    marks = [
        {"y": height(value), "text": f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"}
        for value in (high, (high + low) / 2, low)
    ]
    return {"points": line, "marks": marks, "width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "ends": (first, last)}
