"""`drydock config`: the user's own settings."""

from __future__ import annotations

import os

import click

from builder.cli import complete
from builder.cli.common import echo_json, json_option, reporter
from builder.errors import DrydockError


@click.group()
def config() -> None:
    """Show and change your settings for all projects.

    They stand in a file, of which `drydock config path` prints the name: store, color, caches.places, and indexes.NAME
    for a mirror of an index. Options and variables win over them. A script that is started by itself reads the
    variables only.
    """


@config.command("list")
@json_option
def config_list(as_json: bool) -> None:
    """List the settings, and where each comes from."""
    from builder.cli.tables import show_table
    from builder.project.user_config import settings
    from builder.report import sanitized

    found = settings(os.environ)
    if as_json:
        echo_json([{"key": one.key, "value": sanitized(one.value), "source": one.source} for one in found])
        return
    # The file itself is what `path` prints.
    rows = [(one.key, one.source.rpartition("/")[2], sanitized(one.value)) for one in found]
    show_table(("SETTING", "FROM", "VALUE"), rows)


@config.command("get")
@click.argument("key", shell_complete=complete.settings)
def config_get(key: str) -> None:
    """Print the value of a setting, wherever it comes from."""
    from builder.project.user_config import check_key, settings

    check_key(key)
    value = next((one.value for one in settings(os.environ) if one.key == key), "")
    if not value:
        raise DrydockError(f"{key} is not set", hint=f"drydock config set {key} VALUE")
    click.echo(value)


@config.command("set")
@click.argument("key", shell_complete=complete.settings)
@click.argument("values", metavar="VALUE...", nargs=-1, required=True)
def config_set(key: str, values: tuple[str, ...]) -> None:
    """Set a setting; caches.places takes several values."""
    from builder.project.user_config import change, settings

    file = change(key, values)
    report = reporter()
    report.step(f"{key} is set in {file}; to take it back: drydock config unset {key}")
    found = next((one for one in settings(os.environ) if one.key == key), None)
    if found is not None and not found.is_ours and found.source != "default":
        report.warn(f"{found.source} is set, and wins: {key} is {found.value}")


@config.command("unset")
@click.argument("key", shell_complete=complete.settings)
def config_unset(key: str) -> None:
    """Remove a setting from the file."""
    from builder.project.user_config import change

    file = change(key, ())
    reporter().step(f"{key} is not set any more in {file}")


@config.command("path")
def config_path() -> None:
    """Print the file of your settings, there or not."""
    from builder.project.user_config import path

    file = path(os.environ)
    if file is None:
        raise DrydockError("no home was found", hint="set HOME, or XDG_CONFIG_HOME")
    click.echo(file)
