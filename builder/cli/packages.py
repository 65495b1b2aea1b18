"""Add, remove and update what a project requires, in one go with all that follows from it; and take it back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import click

from builder.cli import complete
from builder.cli.common import agreed, catalogue, names_or_all, reporter, yes_option

if TYPE_CHECKING:
    from builder.build.change import Done

_to_option = click.option(
    "--to", metavar="NAME", shell_complete=complete.profiles, help="Change the profile NAME only."
)
_no_build_option = click.option("--no-build", is_flag=True, help="Build nothing; change files only.")


@click.command()
@click.argument("requirements", nargs=-1, required=True, metavar="PACKAGE...")
@_to_option
@_no_build_option
@yes_option
def add(requirements: tuple[str, ...], to: str | None, no_build: bool, yes: bool) -> None:
    """Add packages to a project.

    PACKAGE is a requirement as pip takes it: six, 'six>=1.16'. It is added to the file that requires-from names, such
    as pyproject.toml, or else to the profile that all others of the project extend. Then locks, generated scripts and
    built environments are updated. If any of this fails, nothing is changed. To take it back: drydock undo.
    """
    from builder.build import change

    _do(partial(change.add, requirements, to, catalogue(), reporter(), builds=not no_build), yes=yes)


@click.command()
@click.argument("packages", nargs=-1, required=True, metavar="PACKAGE...")
@_to_option
@_no_build_option
@yes_option
def remove(packages: tuple[str, ...], to: str | None, no_build: bool, yes: bool) -> None:
    """Remove packages from a project.

    Removes their requirements from its profiles and from the files that requires-from names; then locks, generated
    scripts and built environments are updated, as by drydock add.
    """
    from builder.build import change

    _do(partial(change.remove, packages, to, catalogue(), reporter(), builds=not no_build), yes=yes)


@click.command()
@click.argument("packages", nargs=-1, metavar="[PACKAGE]...")
@click.option(
    "--of",
    "names",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.profiles,
    help="Update the profile NAME only. Repeatable.",
)
@_no_build_option
@yes_option
def update(packages: tuple[str, ...], names: tuple[str, ...], no_build: bool, yes: bool) -> None:
    """Update packages as far as the profiles allow.

    Without PACKAGE, all of them. Locks, generated scripts and built environments are updated too, as by drydock add.
    """
    from builder.build import change

    chosen = names_or_all(names)
    _do(partial(change.update, packages, chosen, catalogue(), reporter(), builds=not no_build), yes=yes)


def _do(work: Callable[[], Done], *, yes: bool) -> None:
    from builder.files import display

    report = reporter()
    done = agreed(work, yes=yes)
    for line in done.lines():
        click.echo(line)
    if not done.files:
        report.step("nothing to change")
        days = {catalogue().profile(name).packages.exclude_newer or None for name in done.locks}
        for day in sorted(day for day in days if day):
            report.step(f"packages are chosen as of {day}; for newer ones, change [packages] exclude-newer")
        return
    names = [display(path) for path in done.files]
    report.step(f"changed: {', '.join(names[:4])}{f', and {len(names) - 4} more' if len(names) > 4 else ''}")
    if done.undoable:
        report.step("to take it back: drydock undo")


@click.command()
def undo() -> None:
    """Take back the last add, remove or update.

    Files become what they were, and profiles go back to the generation before. Refused where a file was changed since.
    """
    from builder.files import display
    from builder.project.undo import undo as take_back

    done = take_back()
    for path in done.files:
        click.echo(display(path))
    report = reporter()
    for name, (before, after) in done.generations.items():
        report.step(f"{name}: back from generation {after} to {before}")
    report.step(f"undone: drydock {done.command}")
