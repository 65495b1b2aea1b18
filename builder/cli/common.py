"""What several commands need: their reporter, --json, the profiles that are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from builder.report import Reporter

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


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
    from builder.catalogue import Catalogue
    from builder.folders import own_profile_folders, profile_names

    catalogue = Catalogue()
    known = profile_names(own_profile_folders()) or catalogue.names()
    return tuple(name for name in known if catalogue.target(name) is not None)
