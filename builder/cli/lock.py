"""Lock profiles, render them, compare them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from builder.cli import complete
from builder.cli.common import agreed, catalogue, echo_json, json_option, names_or_all, reporter, yes_option
from builder.errors import UsageError


@click.command()
@click.argument("names", nargs=-1, shell_complete=complete.profiles)
@click.option("-P", "--upgrade", multiple=True, metavar="PKG", help="Take the newest PKG that fits. Repeatable.")
@click.option("-U", "--upgrade-all", is_flag=True, help="Take the newest of everything that fits.")
@click.option("--check", is_flag=True, help="Write nothing; fail where a lock is missing, stale or edited.")
@click.option("-n", "--dry-run", is_flag=True, help="Write nothing; show what would change.")
@yes_option
def lock(
    names: tuple[str, ...], upgrade: tuple[str, ...], upgrade_all: bool, check: bool, dry_run: bool, yes: bool
) -> None:
    """Lock profiles for their targets, from any host (default: all of this project).

    Versions stay as they are where they still fit the profile. Prints what changed.
    """
    from builder.project.lock import relock

    report = reporter()
    for name in names_or_all(names):
        if check:
            report.step(f"{name}: {len(catalogue().plan(name).lock.packages)} packages, fresh")
            continue
        again = partial(relock, name, catalogue(), report, upgrade=upgrade, upgrade_all=upgrade_all, dry_run=dry_run)
        done = agreed(again, yes=yes)
        for change in done.changes:
            click.echo(f"{name}: {change}")
        for override in done.lock.overrides if done.new else ():
            report.step(f"{name}: overridden: {override.requirement} ({override.reason})")
        state = "locked" if done.written else ("would be locked" if done.new else "is fresh")
        report.step(f"{name}: {state}, {len(done.lock.packages)} packages, {done.lock.size / 1e6:.0f} MB")


@click.command()
@click.argument("names", nargs=-1, shell_complete=complete.profiles)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where to; default generated/NAME.")
@click.option("--check", is_flag=True, help="Write nothing; fail where a file differs from its profile.")
def render(names: tuple[str, ...], out: Path | None, check: bool) -> None:
    """Write the generated files of profiles: run script, env file, repair tools (default: all of this project)."""
    from builder.names import stem
    from builder.project import generated
    from builder.project.snapshot import display

    if out is not None and len(names) != 1:
        raise UsageError("--out goes with exactly one profile", hint="drydock render NAME --out DIR")
    report = reporter()
    for name in names_or_all(names):
        folder = out or Path("generated") / stem(name)
        if check:
            generated.check(name, folder, catalogue().plan(name))
            report.step(f"{name}: {display(folder)} is up to date")
            continue
        changed = generated.generate(name, folder, catalogue().plan(name))
        for path in changed:
            click.echo(display(path))
        report.step(f"{name}: {len(changed)} files changed in {display(folder)}")


@click.command()
@click.argument("before", metavar="A", shell_complete=complete.profiles)
@click.argument("after", metavar="B", shell_complete=complete.profiles)
@json_option
def diff(before: str, after: str, as_json: bool) -> None:
    """Show what differs from A to B: packages, patches, overrides; of two profiles also target, variables, trainer.

    Each of them is a profile (m4), a generation (m4@2), the path of a lock, or a lock in git (HEAD~1:m4).
    """
    from builder.lock.diff import compare
    from builder.project.refs import side

    report = reporter()
    found = compare(side(before, catalogue(), report), side(after, catalogue(), report))
    if as_json:
        echo_json(found.as_json())
        return
    for line in found.lines():
        click.echo(line)
    if found.unknown:
        report.step(f"not known of both, so not compared: {', '.join(found.unknown)}")


@click.command()
@click.argument("name", shell_complete=complete.profiles)
@click.argument("package", shell_complete=complete.packages)
@json_option
def why(name: str, package: str, as_json: bool) -> None:
    """Show why PACKAGE is in the lock of profile NAME: every path from what the profile requires.

    NAME can also be the path of a lock, or a lock in git (HEAD~1:m4).
    """
    from builder.lock.why import why as paths
    from builder.project.refs import side

    lock = side(name, catalogue(), reporter()).lock
    if lock is None:
        raise UsageError(f"{name} does not keep who requires what", hint="ask the lock of a profile")
    found = paths(name, lock, package)
    if as_json:
        echo_json(found.as_json())
        return
    for line in found.lines():
        click.echo(line)
