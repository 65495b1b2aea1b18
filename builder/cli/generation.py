"""`drydock generation`."""

from __future__ import annotations

import click

from builder.cli import complete
from builder.cli.common import catalogue, echo_json, json_option, reporter


@click.group()
def generation() -> None:
    """Switch between the environments that a profile has had."""


@generation.command("list")
@click.argument("name", shell_complete=complete.profiles)
@json_option
def generation_list(name: str, as_json: bool) -> None:
    """List the generations of a profile: number, date, key, changes."""
    from builder.cli.tables import show_table
    from builder.store import generations, history

    rows = history.rows(generations.generations(name))
    if as_json:
        echo_json([row.as_json() for row in rows])
        return
    if not rows:
        known = catalogue().entry(name).profile.name
        reporter().step(f"{known} has no generations; a build makes one: drydock build {known}")
    show_table(history.HEADINGS, [row.cells() for row in rows], right=("NUMBER",))


@generation.command("rollback")
@click.argument("name", shell_complete=complete.profiles)
def generation_rollback(name: str) -> None:
    """Make the previous generation current, until the next build."""
    from builder.store import generations

    click.echo(f"{name} is generation {generations.rollback(name).number}")


@generation.command("switch")
@click.argument("name", shell_complete=complete.profiles)
@click.argument("number", type=int, shell_complete=complete.numbers)
def generation_switch(name: str, number: int) -> None:
    """Make generation NUMBER current."""
    from builder.store import generations

    click.echo(f"{name} is generation {generations.switch(name, number).number}")


@generation.command("delete")
@click.argument("name", shell_complete=complete.profiles)
@click.argument("which", nargs=-1, required=True, shell_complete=complete.numbers)
def generation_delete(name: str, which: tuple[str, ...]) -> None:
    """Delete generations of a profile.

    WHICH is a number, `old` (all but the current one), or an age such as 30d. Their environments stay until `drydock
    store gc`, and a build brings a generation back.
    """
    from builder.store import generations

    for one in generations.delete(name, which):
        click.echo(f"deleted generation {one.number} of {name}")
