"""`drydock bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli.common import PROFILE, agreed, catalogue, echo_json, json_option, reporter, yes_option
from builder.errors import UsageError

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
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    help="Draw the result into a new file.",
)
@json_option
@yes_option
def bench(name: str, against: str, pairs: int, picture: Path | None, as_json: bool, yes: bool) -> None:
    """Measure what a profile does for its trainer.

    Compares start-up, speed, processor and memory with SIDE; both are run alternately. [bench] of the profile says how
    the trainer is run. NAME defaults to auto.
    """
    from builder.check.bench import compare
    from builder.check.bench.picture import draw

    if picture is not None and (picture.suffix != ".svg" or picture.exists()):
        raise UsageError(
            f"{picture} {'already exists' if picture.exists() else 'is not an .svg file'}", hint="--picture x.svg"
        )
    report = reporter()
    found = agreed(lambda: compare(name, against, catalogue(), report, pairs=pairs), yes=yes)
    if picture is not None:
        picture.write_text(draw(found), encoding="utf-8")
        report.step(f"drawn: {picture}")
    if as_json:
        echo_json(found.as_json())
    else:
        for line in _table(found):
            click.echo(line)
    for warning in found.warnings:
        report.warn(warning)


def _table(found: Comparison) -> list[str]:
    rows = [("", found.ours, found.theirs, f"ratio of {found.pairs} pairs", "")]
    for one in found.measures:
        ours, theirs = (f"{_shown(values)} {one.unit}".strip() for values in (one.ours, one.theirs))
        rows.append((one.what, ours, theirs, str(one.ratio), one.verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    head = [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:<{widths[3]}}" for row in rows
    ]
    lines = [f"{text}  {row[4]}".rstrip() for text, row in zip(head, rows, strict=True)]
    level = min(one.ratio.level for one in found.measures)
    return [*lines, f"medians; in brackets where the ratio's true median is, with a probability of {level:.0%}"]


def _shown(values: tuple[float, ...]) -> str:
    import statistics

    middle = statistics.median(values)
    return f"{middle:.0f}" if middle >= 100 else f"{middle:.2f}" if middle < 10 else f"{middle:.1f}"
