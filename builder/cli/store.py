"""`drydock store`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli import complete
from builder.cli.common import columns, echo_json, json_option, reporter
from builder.cli.pictures import is_terminal, marks, svg_option, write_svg
from builder.embedded.words import plural
from builder.errors import DrydockError, UsageError

if TYPE_CHECKING:
    from builder.store.usage import Total


@click.group()
def store() -> None:
    """Show, check and clean the store."""


@store.command("init")
@click.option("--shared", is_flag=True, help="For several people: the group may build, run and collect in it.")
@click.option("--group", metavar="GROUP", help="With --shared: that group, instead of your own.")
def store_init(shared: bool, group: str | None) -> None:
    """Make the store (in DRYDOCK_HOME), and print its folder. A build makes one for you alone by itself."""
    from builder.store.init import init
    from builder.store.layout import Store

    found = Store.here()
    for note in init(found, shared=shared, group=group):
        reporter().warn(note)
    click.echo(found.home)


@store.command("gc")
@click.option("-n", "--dry-run", is_flag=True, help="Print what would be deleted, and do nothing.")
@click.option("--max-age", metavar="AGE", help="Keep environments built more recently, for instance 30d.")
@click.option("--max-size", metavar="SIZE", help="Delete only until the store takes SIZE, for instance 20G.")
@json_option
def store_gc(dry_run: bool, max_age: str | None, max_size: str | None, as_json: bool) -> None:
    """Delete environments that nothing needs.

    An environment is needed by a generation, by a script that was run, or by a running process.
    """
    from builder.report import waiting
    from builder.store import gc

    try:
        age = gc.parse_age(max_age) if max_age else None
        size = gc.parse_size(max_size) if max_size else None
    except ValueError as error:
        raise UsageError(str(error)) from None
    report = reporter()
    with waiting(report, "looking what is needed"):
        done = gc.collect(dry_run=dry_run, max_age=age, max_size=size)
    if as_json:
        rows = [{"path": str(one.path), "why": one.why, "size": one.size} for one in done.deleted]
        echo_json(rows)
    else:
        for one in done.deleted:
            if one.path.suffix != ".pyc":
                click.echo(f"{one.path.name}: {one.why}")
    for path in done.unknown:
        report.warn(f"{path} is not Drydock's, and stays")
    for kept in done.kept[:20]:
        report.warn(f"{kept.path} belongs to {kept.owner}, and cannot be deleted: {kept.why}")
    if len(done.kept) > 20:
        report.warn(f"and {len(done.kept) - 20} more")
    report.step(f"{'would free' if dry_run else 'freed'}: {gc.summary(done.deleted)}")
    if done.kept:
        owners = ", ".join(sorted({kept.owner for kept in done.kept}))
        raise DrydockError(
            f"{plural(len(done.kept), 'path')} that nothing needs could not be deleted",
            hint=f"they go when {owners} collects: drydock store gc",
        )


@store.command("du")
@json_option
@svg_option
def store_du(as_json: bool, svg: Path | None) -> None:
    """Show the size of the store.

    Prints for each environment its size if it were alone, and its own part, which nothing else holds; then the real
    size of the whole. A terminal shows a bar beside, as wide as there is room for.
    """
    from builder.report import waiting
    from builder.store.usage import usage

    with waiting(reporter(), "measuring"):
        total = usage()
    if svg is not None:
        _draw(svg, total)
    if as_json:
        from dataclasses import asdict

        echo_json(asdict(total))
    else:
        _show(total)


def _show(total: Total) -> None:
    from builder.cli.tables import megabytes, show_table

    bars = _bars(total)
    rows = [
        (megabytes(row.apparent), megabytes(row.own), str(row.files), bars.get(row.store_name, ""), row.store_name)
        for row in total.environments
    ]
    rows.append((megabytes(total.bytecode), "", "", "", "shared bytecode"))
    if total.data:
        rows.append((megabytes(total.data), "", "", "", "models and data sets"))
    rows.append((megabytes(total.real), "", "", "", _whole(total)))
    heading = f"{marks().own} OWN {marks().shared} SHARED" if bars else ""
    show_table(("SIZE", "OWN", "FILES", heading, "ENVIRONMENT"), rows, right=("SIZE", "OWN", "FILES"))


def _whole(total: Total) -> str:
    from builder.cli.tables import megabytes

    return f"on disk, instead of {megabytes(total.apparent)}: files are shared"


_SHORTEST, _LONGEST = 14, 40  # columns of a bar: below that of its heading there is none


def _bars(total: Total) -> dict[str, str]:
    """A bar for each environment on a terminal; where the longest name has no room beside, it stands below."""
    if not is_terminal() or not total.environments:
        return {}
    from builder.check.pictures.terminal import bar
    from builder.cli.tables import megabytes

    most = max(row.apparent for row in total.environments)
    numbers = (megabytes(max(most, total.real)), megabytes(most), "FILES")
    room = columns() - sum(map(len, numbers)) - 2 * len(numbers) - 1
    beside = room - 2 - max(len(row.store_name) for row in total.environments)
    wide = min(_LONGEST, room if beside < _SHORTEST else beside)
    if wide < _SHORTEST:
        return {}
    return {row.store_name: bar(row.own, row.apparent, most, wide, marks()) for row in total.environments}


def _draw(path: Path, total: Total) -> None:
    from builder.check.pictures.svg import Bar, bars, document
    from builder.cli.tables import megabytes

    if not total.environments:
        raise UsageError("nothing is built", hint="drydock build NAME")
    found = [
        Bar(
            row.store_name,
            row.own,
            row.apparent,
            f"{megabytes(row.apparent)}, {megabytes(row.own)} its own, {plural(row.files, 'file')}",
        )
        for row in total.environments
    ]
    whole = f"{megabytes(total.real)} {_whole(total)}"
    write_svg(
        path,
        document(
            "The store",
            f"{whole}. " + "; ".join(f"{one.what}: {one.words}" for one in found),
            [bars(found, "its own", "shared")],
        ),
    )


@store.command("verify")
@click.argument("keys", metavar="[KEY]...", nargs=-1, shell_complete=complete.keys)
@click.option("--repair", is_flag=True, help="Build damaged environments again, from their locks.")
@json_option
def store_verify(keys: tuple[str, ...], repair: bool, as_json: bool) -> None:
    """Check every file of the store: changed, missing, extra.

    KEY selects environments by the beginning of their keys. Unlike `drydock verify NAME`, it runs no proofs.
    """
    from builder.build.repair import verify_store

    outcomes = []
    for one in verify_store(keys, reporter(), repair=repair):
        outcomes.append(one)
        if as_json:
            continue
        word = "ok  " if not one.problems else ("repaired" if one.mended else "FAIL")
        click.echo(f"{word} {one.store_name}: {plural(one.files, 'file')}, {one.size / 1e6:.1f} MB")
        for problem in one.problems[:20]:
            click.echo(f"       {problem}")
        if len(one.problems) > 20:
            click.echo(f"       and {len(one.problems) - 20} more: --json has them all")
    if as_json:
        echo_json([one.as_json() for one in outcomes])
    bad = [one for one in outcomes if not one.good]
    if bad:
        raise DrydockError(
            f"{len(bad)} of {plural(len(outcomes), 'environment')} {'is' if len(bad) == 1 else 'are'} damaged",
            hint="drydock store verify --repair",
        )
