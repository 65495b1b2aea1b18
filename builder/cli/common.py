"""What several commands need: their reporter, --json, the profiles that are meant, a person's consent."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from builder.report import Reporter

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Run profiles of a source without asking.")
_T = TypeVar("_T")


def reporter() -> Reporter:
    """Return the reporter for this call: quiet with --quiet."""
    from builder import report

    return report.reporter(quiet=bool(click.get_current_context().obj))


def echo_json(data: Any) -> None:
    """Print `data` as JSON on stdout."""
    import json

    click.echo(json.dumps(data, indent=1))


def names_or_all(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return `names`, or else the buildable profiles of the project, or else the built-in ones.

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
    """Return the result of `work`; where it stops for want of consent, ask first.

    Raises ConsentError where there is no terminal to ask on, and DrydockError where the answer is no.
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
