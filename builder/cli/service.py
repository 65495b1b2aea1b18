"""`drydock service`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from builder.cli import complete
from builder.cli.common import agreed, catalogue, reporter, yes_option
from builder.cli.run import Dashed
from builder.embedded.words import plural
from builder.errors import EXIT_FAILED, UsageError

if TYPE_CHECKING:
    from builder.fleet.services import Rows
    from builder.run import service as service_


@click.group()
def service() -> None:
    """Start supervised runs with the machine."""


_manager = click.option(
    "--manager", type=click.Choice(["systemd", "launchd"]), help="The service manager (default: that of this machine)."
)


_on = click.option("--on", "fleet", metavar="FLEET", help="On each host of a fleet, for itself.")


class _Install(Dashed):
    after = "arguments for the trainer go"


@service.command("install", cls=_Install)
@click.argument("name", shell_complete=complete.profiles)
@click.argument("words", nargs=-1, metavar="[-- ARGUMENTS]...", shell_complete=complete.files)
@click.option("--print", "as_text", is_flag=True, help="Write nothing; print the file.")
@_manager
@_on
@click.option("--fewest", type=int, metavar="N", help="With --on: install where so many hosts can have it.")
@yes_option
def service_install(
    name: str,
    words: tuple[str, ...],
    as_text: bool,
    manager: service_.Manager | None,
    fleet: str | None,
    fewest: int | None,
    yes: bool,
) -> None:
    """Write a user unit of systemd, or an agent of launchd.

    It supervises the trainer of profile NAME, in this folder. With --on FLEET each host gets its own, which is started
    at once, and again where its generation, settings or ARGUMENTS have changed; on none where one host cannot have it.
    NAME may be auto then. See how they are: drydock run NAME --on FLEET --status.
    """
    from builder.run import service as service_

    if fleet is None and (words or fewest is not None):
        raise UsageError(
            "arguments and --fewest go with --on", hint="a service of this machine has the profile's arguments"
        )
    if fleet is not None:
        if as_text or manager:
            raise UsageError("--print and --manager are of this machine", hint="leave them out, or --on")
        _install_on(fleet, name, words, fewest, yes=yes)
        return
    kind = manager or service_.manager()
    if as_text:
        click.echo(service_.text(name, kind, catalogue().profile(name)), nl=False)
        return
    file = agreed(lambda: service_.install(name, kind, catalogue()), yes=yes)
    click.echo(file)
    for step in service_.steps(file, kind):
        reporter().step(step)


def _install_on(fleet: str, name: str, words: tuple[str, ...], fewest: int | None, *, yes: bool) -> None:
    from builder.fleet import services

    named, report = catalogue().config.fleet(fleet), reporter()
    rows = agreed(lambda: services.install(named, name, catalogue(), report, words, fewest), yes=yes)
    show_services(rows)
    installed = [row for row in rows.values() if row.found.get("installed")]
    if not installed and fewest is None:
        report.step("nothing was installed: a service goes to all hosts or to none; to accept fewer: --fewest N")
    good = sum(row.is_good for row in installed)
    report.step(f"{fleet}: {good} of {plural(len(rows), 'host')}")
    if good < len(rows):
        sys.exit(EXIT_FAILED)


def show_services(rows: Rows) -> None:
    """Print how services are, a line for hosts that are alike."""
    from builder.fleet import services
    from builder.report import sanitized

    for line in services.described(rows):
        click.echo(sanitized(line))


@service.command("uninstall")
@click.argument("name", shell_complete=complete.profiles)
@_manager
@_on
def service_uninstall(name: str, manager: service_.Manager | None, fleet: str | None) -> None:
    """Remove the unit or agent; a current run goes on.

    With --on FLEET it is stopped first, on each host; logs, checkpoints and identities stay there.
    """
    from builder.run import service as service_

    if fleet is None:
        click.echo(service_.uninstall(name, manager or service_.manager()))
        return
    from builder.fleet import services

    rows = services.uninstall(catalogue().config.fleet(fleet), name, catalogue())
    show_services(rows)
    if any(row.why for row in rows.values()):
        sys.exit(EXIT_FAILED)
