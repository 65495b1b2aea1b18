"""`drydock service`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from builder.cli import complete
from builder.cli.common import agreed, catalogue, reporter, yes_option

if TYPE_CHECKING:
    from builder.run import service as service_


@click.group()
def service() -> None:
    """Start supervised runs with the machine."""


_manager = click.option(
    "--manager", type=click.Choice(["systemd", "launchd"]), help="The service manager (default: that of this machine)."
)


@service.command("install")
@click.argument("name", shell_complete=complete.profiles)
@click.option("--print", "as_text", is_flag=True, help="Write nothing; print the file.")
@_manager
@yes_option
def service_install(name: str, as_text: bool, manager: service_.Manager | None, yes: bool) -> None:
    """Write a user unit of systemd, or an agent of launchd.

    It supervises the trainer of profile NAME, in this folder.
    """
    from builder.run import service as service_

    kind = manager or service_.manager()
    if as_text:
        click.echo(service_.text(name, kind, catalogue().profile(name)), nl=False)
        return
    file = agreed(lambda: service_.install(name, kind, catalogue()), yes=yes)
    click.echo(file)
    for step in service_.steps(file, kind):
        reporter().step(step)


@service.command("uninstall")
@click.argument("name", shell_complete=complete.profiles)
@_manager
def service_uninstall(name: str, manager: service_.Manager | None) -> None:
    """Remove the unit or agent; a current run goes on."""
    from builder.run import service as service_

    click.echo(service_.uninstall(name, manager or service_.manager()))
