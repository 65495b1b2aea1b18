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
    """Have the machine start a supervised run."""


_manager = click.option(
    "--manager", type=click.Choice(["systemd", "launchd"]), help="For another system (default: that of this machine)."
)


@service.command("install")
@click.argument("name", shell_complete=complete.profiles)
@click.option("--print", "as_text", is_flag=True, help="Write nothing; print the file.")
@_manager
@yes_option
def service_install(name: str, as_text: bool, manager: service_.Manager | None, yes: bool) -> None:
    """Write the user unit of systemd, or the agent of launchd, that supervises profile NAME from this folder."""
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
    """Remove what `install` wrote; a run that is under way goes on."""
    from builder.run import service as service_

    click.echo(service_.uninstall(name, manager or service_.manager()))
