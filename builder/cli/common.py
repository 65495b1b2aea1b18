"""What several commands need: their reporter, --json, the profiles that are meant, a person's consent."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from builder.report import Reporter

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Run what a source of profiles says without asking.")
_T = TypeVar("_T")


def reporter() -> Reporter:
    """The reporter that --quiet, or its absence, asks for."""
    from builder import report

    return report.reporter(quiet=bool(click.get_current_context().obj))


def echo_json(data: Any) -> None:
    """Prints `data` on stdout."""
    import json

    click.echo(json.dumps(data, indent=1))


def names_or_all(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names given, else the project's own profiles that can be built; the built-in ones where it has no profile.

    Raises ProfileError.
    """
    if names:
        return names
    from builder.project.catalogue import Catalogue
    from builder.project.discovery import own_profile_folders, profile_names

    catalogue = Catalogue()
    known = profile_names(own_profile_folders()) or catalogue.names()
    return tuple(name for name in known if catalogue.target(name) is not None)


def agreed(work: Callable[[], _T], *, yes: bool) -> _T:
    """What `work` gives. Where it stops because nobody has agreed to run a source's profile, somebody is asked first.

    Raises ConsentError where nobody is there to ask, and DrydockError where the answer is no.
    """
    from builder.errors import ConsentError, DrydockError

    try:
        return work()
    except ConsentError as error:
        from builder.project.review import review
        from builder.project.sources import consent

        seen = review(error.name, reporter().step)
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
