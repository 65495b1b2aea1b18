"""`drydock bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli.common import PROFILE, agreed, catalogue, echo_json, json_option, reporter, yes_option
from builder.cli.pictures import is_terminal, marks, svg_option, width, write_svg

if TYPE_CHECKING:
    from builder.check.bench import Comparison


@click.command()
@click.argument("name", default="auto", type=PROFILE)
@click.option(
    "--against",
    default="plain",
    metavar="SIDE",
    help="Compare with plain (the same wheels by uv, without variables), a profile, or a generation (NAME@N).",
)
@click.option("--pairs", default=6, show_default=True, metavar="N", help="Run each side so many times; at least 5.")
@svg_option
@json_option
@yes_option
def bench(name: str, against: str, pairs: int, svg: Path | None, as_json: bool, yes: bool) -> None:
    """Measure what a profile does for its trainer.

    Compares start-up, speed, processor and memory with SIDE; both are run alternately. [bench] of the profile says how
    the trainer is run. NAME defaults to auto.
    """
    from builder.check.bench import compare
    from builder.check.bench.picture import draw

    report = reporter()
    found = agreed(lambda: compare(name, against, catalogue(), report, pairs=pairs), yes=yes)
    if svg is not None:
        write_svg(svg, draw(found))
    if as_json:
        echo_json(found.as_json())
    else:
        _show(found)
    for warning in found.warnings:
        report.warn(warning)


def _show(found: Comparison) -> None:
    level = min(one.ratio.level for one in found.measures)
    meaning = f"medians; in brackets where the ratio's true median is, with a probability of {level:.0%}"
    if not is_terminal():
        click.echo("\n".join([*_table(found), meaning]))
        return
    from builder.check.bench.picture import rows
    from builder.check.pictures.terminal import intervals
    from builder.cli.tables import show_table

    head, *rest = _rows(found)
    show_table(head, rest, right=(found.ours, found.theirs))
    click.echo(f"{click.wrap_text(meaning, width())}\n")
    click.echo("\n".join(intervals(rows(found), width(), marks())))


def _rows(found: Comparison) -> list[tuple[str, str, str, str, str]]:
    rows = [("", found.ours, found.theirs, f"ratio of {found.pairs} pairs", "")]
    for one in found.measures:
        ours, theirs = (f"{_rounded_median(values)} {one.unit}".strip() for values in (one.ours, one.theirs))
        rows.append((one.what, ours, theirs, str(one.ratio), one.verdict))
    return rows


def _table(found: Comparison) -> list[str]:
    rows = _rows(found)
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    head = [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:<{widths[3]}}" for row in rows
    ]
    return [f"{text}  {row[4]}".rstrip() for text, row in zip(head, rows, strict=True)]


def _rounded_median(values: tuple[float, ...]) -> str:
    import statistics

    middle = statistics.median(values)
    return f"{middle:.0f}" if middle >= 100 else f"{middle:.2f}" if middle < 10 else f"{middle:.1f}"
