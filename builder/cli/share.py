"""Share what was locked: mirrors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from builder.cli.common import echo_json, json_option, reporter

if TYPE_CHECKING:
    from builder.mirror import Pushed

_dry_run = click.option("-n", "--dry-run", is_flag=True, help="Only say what would be moved.")


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.argument("destination", metavar="DEST")
@_dry_run
@json_option
def push(names: tuple[str, ...], destination: str, dry_run: bool, as_json: bool) -> None:
    """Put the locked files of profiles at DEST, as a package index that pip, uv and every build can read.

    DEST is a folder, ssh://HOST/PATH, s3://BUCKET/PATH, or what else fsspec reaches. Several profiles, and several
    pushes, make one index. What is there already is not moved.
    """
    from builder import mirror

    _tell(mirror.push(names, destination, reporter(), dry_run=dry_run), "push", dry_run, as_json)


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.argument("source", metavar="SRC")
@_dry_run
@json_option
def pull(names: tuple[str, ...], source: str, dry_run: bool, as_json: bool) -> None:
    """Bring the locked files of profiles from the mirror SRC, so that they can be built without a network.

    SRC is what `drydock push` takes as DEST, or http:// or https:// where that is served.
    """
    from builder import mirror

    _tell(mirror.pull(names, source, reporter(), dry_run=dry_run), "pull", dry_run, as_json)


def _tell(done: Pushed, verb: str, dry_run: bool, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        echo_json(asdict(done))
        return
    if dry_run:
        for file in done.moved:
            click.echo(file)
    word = f"would {verb}" if dry_run else f"{verb}ed"
    click.echo(
        f"{done.place}: {done.files} files, {done.size / 1e6:.1f} MB; "
        f"{word} {len(done.moved)}, {done.moved_size / 1e6:.1f} MB"
    )
