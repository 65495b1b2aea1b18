"""Lock profiles, render them, compare them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from builder.cli import complete
from builder.cli.common import agreed, catalogue, echo_json, json_option, names_or_all, reporter, yes_option
from builder.embedded.words import plural
from builder.errors import UsageError


@click.command()
@click.argument("names", nargs=-1, shell_complete=complete.profiles)
@click.option("-P", "--upgrade", multiple=True, metavar="PKG", help="Use the newest PKG that fits. Repeatable.")
@click.option("-U", "--upgrade-all", is_flag=True, help="Use the newest of every package that fits.")
@click.option("--check", is_flag=True, help="Write nothing; fail if a lock is missing, stale or edited.")
@click.option("-n", "--dry-run", is_flag=True, help="Write nothing; print the changes.")
@yes_option
def lock(
    names: tuple[str, ...], upgrade: tuple[str, ...], upgrade_all: bool, check: bool, dry_run: bool, yes: bool
) -> None:
    """Lock profiles for their targets, from any host.

    Without NAMES, all of this project. Versions stay as they are where they still fit the profile. Prints the changes.
    """
    from builder.project.lock import relock

    report = reporter()
    for name in names_or_all(names):
        if check:
            report.step(f"{name}: {plural(len(catalogue().plan(name).lock.packages), 'package')}, fresh")
            continue
        again = partial(relock, name, catalogue(), report, upgrade=upgrade, upgrade_all=upgrade_all, dry_run=dry_run)
        done = agreed(again, yes=yes)
        for change in done.changes:
            click.echo(f"{name}: {change}")
        for override in done.lock.overrides if done.new else ():
            report.step(f"{name}: overridden: {override.requirement} ({override.reason})")
        state = "locked" if done.written else ("would be locked" if done.new else "is fresh")
        report.step(f"{name}: {state}, {plural(len(done.lock.packages), 'package')}, {done.lock.size / 1e6:.0f} MB")


@click.command()
@click.argument("names", nargs=-1, shell_complete=complete.profiles)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where to write (default: generated/NAME).")
@click.option("--check", is_flag=True, help="Write nothing; fail if a file differs from its profile.")
@click.option("--standalone", is_flag=True, help="Make the tools for existing installations whole, to be copied alone.")
def render(names: tuple[str, ...], out: Path | None, check: bool, standalone: bool) -> None:
    """Write the generated files of profiles.

    Those are the run script, the env file and the repair tools. Without NAMES, all profiles of this project.
    """
    from builder.files import display
    from builder.names import stem
    from builder.project import generated

    if out is not None and len(names) != 1:
        raise UsageError("--out goes with exactly one profile", hint="drydock render NAME --out DIR")
    report = reporter()
    for name in names_or_all(names):
        folder = out or Path("generated") / stem(name)
        if check:
            generated.check(name, folder, catalogue().plan(name), standalone=standalone)
            report.step(f"{name}: {display(folder)} is up to date")
            continue
        changed = generated.generate(name, folder, catalogue().plan(name), standalone=standalone)
        for path in changed:
            click.echo(display(path))
        report.step(f"{name}: {plural(len(changed), 'file')} changed in {display(folder)}")


@click.command()
@click.argument("before", metavar="A", shell_complete=complete.profiles)
@click.argument("after", metavar="B", shell_complete=complete.profiles)
@json_option
def diff(before: str, after: str, as_json: bool) -> None:
    """Compare two profiles, locks or generations.

    Prints different packages, patches and overrides; of two profiles also target, variables and trainer. Each of A and
    B is a profile (m4), a generation (m4@2), the path of a lock, or a lock in git (HEAD~1:m4).
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
        report.step(f"not known for both, so not compared: {', '.join(found.unknown)}")


@click.command()
@click.argument("name", shell_complete=complete.profiles)
@click.argument("package", shell_complete=complete.packages)
@json_option
def why(name: str, package: str, as_json: bool) -> None:
    """Show why a package is in a lock.

    Prints every path from a requirement of the profile to PACKAGE. NAME can also be the path of a lock, or a lock in
    git (HEAD~1:m4).
    """
    from builder.lock.why import why as paths
    from builder.project.refs import side

    lock = side(name, catalogue(), reporter()).lock
    if lock is None:
        raise UsageError(f"{name} does not record which package requires which", hint="name a profile, or its lock")
    found = paths(name, lock, package)
    if as_json:
        echo_json(found.as_json())
        return
    for line in found.lines():
        click.echo(line)
