"""What several commands need: their reporter, --json, the profiles that are meant, a person's consent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from builder.machine import Machine
    from builder.project.catalogue import Catalogue
    from builder.report import Reporter

    _Parameter = click.ParamType[str]
else:
    _Parameter = click.ParamType  # which takes no argument before click 8.2

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Run profiles of a source without asking.")
_T = TypeVar("_T")
_COLUMNS = 80  # where there is no terminal


class Command:
    """What a command works with: each is made when it is first asked for, and is then the same for all of it."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    @cached_property
    def report(self) -> Reporter:
        """The reporter that --quiet, or its absence, asks for."""
        from builder import report

        return report.reporter(quiet=self.quiet)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The profiles, each file of them read once."""
        from builder.project.catalogue import Catalogue

        def under_way(source: str) -> AbstractContextManager[None]:
            from builder.project.sources.pinning import under_way

            return under_way(self.report, source)

        return Catalogue(step=self.report.step, under_way=under_way)

    @cached_property
    def machine(self) -> Machine:
        """This machine."""
        from builder.machine import detect

        return detect()


def command() -> Command:
    """What the command that is run now works with."""
    found = click.get_current_context().find_object(Command)
    return found if found is not None else Command(quiet=False)


def reporter() -> Reporter:
    """The reporter of the command that is run now."""
    return command().report


def catalogue() -> Catalogue:
    """The profiles, for the command that is run now."""
    return command().catalogue


class _Profile(_Parameter):
    """The name of a profile; `auto` becomes the one that is for this machine, here and nowhere else."""

    name = "profile"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        if value != "auto" or ctx is None or ctx.resilient_parsing:  # that is a shell's completion
            return value
        if isinstance(ctx.params.get("fleet"), str):  # each host of it has its own
            return value
        from builder.project.auto import pick

        here = command()
        picked = pick(here.machine, here.catalogue)
        here.report.step(f"auto: {picked.name} ({here.machine}; {picked.why})")
        if picked.unused:
            here.report.warn(picked.unused)
        return picked.name


PROFILE = _Profile()


def show(text: str, *, err: bool = False) -> None:
    """Print text for people, coloured where that is wanted: on stdout, or on stderr."""
    from builder.report import painted

    # Painted or not, it is as it should be: click would look at the terminal alone.
    click.echo(painted(text, sys.stderr if err else sys.stdout), err=err, color=True)


def columns() -> int:
    """The columns of the terminal, as shutil.get_terminal_size finds them: that loads what unpacks archives."""
    with suppress(KeyError, ValueError):
        if (named := int(os.environ["COLUMNS"])) > 0:
            return named
    with suppress(AttributeError, ValueError, OSError):  # there is no stdout, or it is closed, or no terminal
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or _COLUMNS  # type: ignore[union-attr]
    return _COLUMNS


def echo_json(data: Any) -> None:
    """Print `data` as JSON on stdout."""
    import json

    click.echo(json.dumps(data, indent=1))


def names_or_all(names: tuple[str, ...], *, built_in: bool = False) -> tuple[str, ...]:
    """Return `names`, or else the buildable profiles of the project; where there are none, the `built_in` ones.

    Raises UsageError where those are not wanted, and ProfileError.
    """
    if names:
        return names
    from builder.errors import UsageError
    from builder.files import display
    from builder.project.discovery import own_profile_folders, profile_names, project_above

    known = profile_names(own_profile_folders()) or (catalogue().names() if built_in else [])
    if not known:
        above = project_above()
        hint = f"a project is above: cd {display(above)}" if above else "drydock init begins one; or name a profile"
        raise UsageError("there is no profile of a project here", hint=hint)
    return tuple(name for name in known if catalogue().target(name) is not None)


def agreed(work: Callable[[], _T], *, yes: bool) -> _T:
    """Return the result of `work`; where it stops for want of consent, ask first.

    Raises ConsentError where there is no terminal to ask on, and DrydockError where the answer is no.
    """
    from builder.errors import ConsentError, DrydockError

    try:
        return work()
    except ConsentError as error:
        from builder.project.review import review
        from builder.project.sources import consent

        seen = review(error.name, catalogue())
        for line in seen.lines():
            click.echo(line, err=True)
        if not yes:
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise
            if not click.confirm("Run this on this machine?", err=True):
                raise DrydockError(f"{error.name} was not agreed to, and nothing was run") from None
        if seen.content is not None:
            consent.give(
                seen.content,
                {"profile": seen.name, "sources": {name: str(place) for name, (place, _) in seen.sources.items()}},
            )
    return work()
