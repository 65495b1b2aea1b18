"""The status as one HTML page that asks no other host for anything: served live, or kept as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from builder.check.pictures.plot import Curve, Plot, points
from builder.check.pictures.svg import geometry
from builder.check.status.collect import duration
from builder.report import sanitized

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
        finalize=lambda value: sanitized(value) if type(value) is str else value,  # not what is HTML already
    )
    environment.filters.update(span=duration, day=_day, picture=picture, gb=lambda size: f"{size / 1e9:.1f} GB")
    return environment.get_template(name).render(**values)


def _day(text: str) -> str:
    return text[:19].replace("T", " ")


def picture(rows: Sequence[Sequence[float]], column: int = 1, scale: float = 1.0) -> dict[str, Any] | None:
    """A line through the points of a curve, for an SVG: `column` of its rows over the first one.

    >>> found = picture([[0, 2.0], [10, 1.0]])
    >>> found["curves"], [mark["text"] for mark in found["marks"]]
    (['72.0,8.0 640.0,148.0'], ['2', '1.5', '1'])
    >>> picture([[0, 2.0]]) is None
    True
    """
    curve = points(rows, column, scale)
    if not curve:
        return None
    plot = Plot("", [Curve("", curve)], ("", ""))
    drawn = geometry(plot, width=_WIDTH, height=_HEIGHT - _BELOW, left=_LEFT)
    return {**drawn, "width": _WIDTH, "height": _HEIGHT, "left": _LEFT}
