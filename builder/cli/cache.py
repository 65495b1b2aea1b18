"""`drydock cache`."""

from __future__ import annotations

import click

from builder.cli import complete
from builder.cli.common import echo_json, json_option, reporter
from builder.embedded.words import plural


@click.group()
def cache() -> None:
    """Measure and remove what is kept to be quicker.

    The cache of uv is its own: uv cache dir, uv cache clean.
    """


@cache.command("size")
@json_option
def cache_size(as_json: bool) -> None:
    """Show the size of each cache, and what removes it."""
    from builder.cli.tables import megabytes, show_table
    from builder.store.caches import sizes

    with reporter().busy("measuring"):
        found = sizes()
    if as_json:
        echo_json([{"name": one.name, "size": size, "what": one.what} for one, size in found])
        return
    rows = [(one.name, megabytes(size), one.what) for one, size in found]
    show_table(("CACHE", "SIZE", "WHAT IT IS"), rows, right=("SIZE",))


@cache.command("clean")
@click.argument("names", nargs=-1, metavar="[CACHE]...", shell_complete=complete.caches)
@click.option("-n", "--dry-run", is_flag=True, help="Print what would be removed, and do nothing.")
def cache_clean(names: tuple[str, ...], dry_run: bool) -> None:
    """Remove caches: evaluations, tools, mirror.

    Without CACHE, all that can be made or fetched again: not the mirror, which is there to build without a network.
    Environments go on working. What they share is removed by `drydock store gc`.
    """
    from builder.cli.tables import megabytes
    from builder.store.caches import clean

    removed, kept = clean(names, dry_run=dry_run)
    for one in removed:
        click.echo(f"{one.cache.name}: {plural(one.files, 'file')}, {megabytes(one.size)}")
    report = reporter()
    for path in kept[:20]:
        report.warn(f"{path} cannot be removed")
    size = megabytes(sum(one.size for one in removed))
    report.step(f"{'would free' if dry_run else 'freed'}: {size}")
