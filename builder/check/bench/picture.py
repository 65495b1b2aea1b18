"""A comparison as a picture: each pair a dot, the median and its interval, on a line of ratios."""

from __future__ import annotations

from builder.check.bench.compare import Comparison
from builder.check.pictures.plot import Ratio
from builder.check.pictures.svg import document, ratios


def rows(found: Comparison) -> list[Ratio]:
    """The ratios of all that was measured."""
    return [
        Ratio(one.what, one.ratio.median, one.ratio.low, one.ratio.high, one.ratios, one.verdict)
        for one in found.measures
    ]


def draw(found: Comparison) -> str:
    """An SVG picture of a comparison."""
    title = f"{found.ours} against {found.theirs}, {found.pairs} pairs"
    meaning = (
        f"Ratios: each pair, the median, and the interval that has the true one. Left of 1, {found.ours} takes less. "
        f"Others kept {found.others:.1f} of {found.processors} processors busy. "
    )
    return document(
        title, meaning + "; ".join(f"{one.what} {one.ratio}" for one in found.measures), [ratios(rows(found))]
    )
