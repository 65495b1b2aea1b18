"""`drydock sources`."""

from __future__ import annotations

import click

from builder.cli.common import echo_json, json_option, reporter
from builder.embedded.words import plural


@click.group()
def sources() -> None:
    """Use the profiles of other repositories, packages and folders."""


@sources.command("lock")
@click.option("--check", is_flag=True, help="Write nothing; fail if a source in drydock.toml is not pinned.")
def sources_lock(check: bool) -> None:
    """Pin and fetch new sources; the others stay as they are."""
    from builder.project.sources import pinning

    if check:
        reporter().step(f"{plural(pinning.check(), 'source')} pinned, fresh")
        return
    for change in pinning.lock(reporter()):
        click.echo(change)


@sources.command("update")
@click.argument("names", nargs=-1)
def sources_update(names: tuple[str, ...]) -> None:
    """Pin sources to their newest content (default: all)."""
    from builder.project.sources import pinning

    report = reporter()
    changes = pinning.update(names, report)
    for change in changes:
        click.echo(change)
    if not changes:
        report.step("nothing has changed")


@sources.command("list")
@json_option
def sources_list(as_json: bool) -> None:
    """List the sources with their pins and states."""
    from builder.cli.tables import show_table
    from builder.project.sources import pinning

    rows = pinning.states()
    if as_json:
        echo_json([row.as_json() for row in rows])
        return
    cells = []
    for row in rows:
        place = " ".join(filter(None, (row.kind, row.place, row.rev)))
        pinned = row.commit[:12] if row.commit else row.version or ""
        content = f"sha256 {row.sha256[:12]}" if row.sha256 else ""
        cells.append((row.name, place, pinned, content, row.state))
    show_table(("SOURCE", "PLACE", "PINNED", "CONTENT", "STATE"), cells)
