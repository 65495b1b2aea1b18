"""`drydock store`."""

from __future__ import annotations

import click

from builder.cli import complete
from builder.cli.common import echo_json, json_option, reporter
from builder.errors import DrydockError, UsageError


@click.group()
def store() -> None:
    """Look after the store."""


@store.command("gc")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option("--max-age", metavar="AGE", help="Keep what was built more recently, for instance 30d.")
@click.option(
    "--max-size", metavar="SIZE", help="Delete no more than is needed to come down to SIZE, for instance 20G."
)
@json_option
def store_gc(dry_run: bool, max_age: str | None, max_size: str | None, as_json: bool) -> None:
    """Delete what nothing needs: environments without a generation, script or process, and what belongs to them."""
    from builder.store import gc

    try:
        age = gc.parse_age(max_age) if max_age else None
        size = gc.parse_size(max_size) if max_size else None
    except ValueError as error:
        raise UsageError(str(error)) from None
    deleted = gc.collect(dry_run=dry_run, max_age=age, max_size=size)
    if as_json:
        rows = [{"path": str(one.path), "why": one.why, "size": one.size} for one in deleted]
        echo_json(rows)
    else:
        for one in deleted:
            if one.path.suffix != ".pyc":
                click.echo(f"{one.path.name}: {one.why}")
    reporter().step(f"{'would free' if dry_run else 'freed'}: {gc.summary(deleted)}")


@store.command("du")
@json_option
def store_du(as_json: bool) -> None:
    """Show how much the store takes: each environment as if it were alone, its own part, and the real whole."""
    from builder.store.usage import usage

    total = usage()
    if as_json:
        from dataclasses import asdict

        echo_json(asdict(total))
        return
    for row in total.environments:
        click.echo(f"{row.apparent / 1e6:10.1f} MB  own {row.own / 1e6:8.1f} MB  {row.files:7} files  {row.store_name}")
    click.echo(f"{total.bytecode / 1e6:10.1f} MB  shared bytecode")
    click.echo(f"{total.real / 1e6:10.1f} MB  really, of {total.apparent / 1e6:.1f} MB: a hard link counts once")


@store.command("verify")
@click.argument("keys", metavar="[KEY]...", nargs=-1, shell_complete=complete.keys)
@click.option("--repair", is_flag=True, help="Build what is damaged again, from its lock, and put it in place.")
@json_option
def store_verify(keys: tuple[str, ...], repair: bool, as_json: bool) -> None:
    """Check every file of the store, or of the environments whose KEY begins so: changed, missing, extra.

    Unlike `drydock verify NAME` it runs nothing of an environment: no proofs.
    """
    from builder.build.repair import verify_store

    outcomes = []
    for one in verify_store(keys, reporter(), repair=repair):
        outcomes.append(one)
        if as_json:
            continue
        word = "ok  " if not one.problems else ("mended" if one.mended else "FAIL")
        click.echo(f"{word} {one.store_name}: {one.files} files, {one.size / 1e6:.1f} MB")
        for problem in one.problems[:20]:
            click.echo(f"       {problem}")
        if len(one.problems) > 20:
            click.echo(f"       and {len(one.problems) - 20} more: --json has them all")
    if as_json:
        echo_json([one.as_json() for one in outcomes])
    bad = [one for one in outcomes if not one.good]
    if bad:
        raise DrydockError(
            f"{len(bad)} of {len(outcomes)} are not as they were built", hint="drydock store verify --repair"
        )
