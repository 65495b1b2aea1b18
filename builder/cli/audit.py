"""`drydock audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli import complete
from builder.cli.common import catalogue, echo_json, json_option, names_or_all, reporter
from builder.embedded.words import plural

if TYPE_CHECKING:
    from builder.lock.audit import Audit


@click.command()
@click.argument("names", nargs=-1, shell_complete=complete.profiles)
@click.option("--service", metavar="URL", help="Ask OSV's API at this place.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    metavar="PATH",
    help="Use a copy of OSV's data, a folder or a .zip, and no network.",
)
@json_option
def audit(names: tuple[str, ...], service: str | None, data: Path | None, as_json: bool) -> None:
    """List known vulnerabilities of locked packages.

    Asks OSV (osv.dev) by uv, or reads a copy of its data. A profile lists the vulnerabilities that it accepts, each
    with the reason, in [audit.acknowledge]. The exit status is 1 if there is any other, if an advisory cannot be
    judged, and if OSV cannot be asked. Without NAMES, all profiles of this project.
    """
    from builder.check import audit as workflow

    found = workflow.audit(names_or_all(names), catalogue(), reporter(), service=service, data=data)
    if as_json:
        echo_json({name: one.as_json() for name, one in found.items()})
    else:
        for name, one in found.items():
            _print_audit(name, one)
    workflow.check(found)


def _print_audit(name: str, one: Audit) -> None:
    from builder.check.audit import counted

    report = reporter()
    known = f", {len(one.acknowledged)} acknowledged" if one.acknowledged else ""
    report.step(f"{name}: {plural(one.packages, 'package')}, {counted(one.found)}{known}")
    for advisory in one.found:
        click.echo(f"FAIL {advisory}")
    for advisory, reason in one.acknowledged:
        click.echo(f"ok   {advisory} (acknowledged: {reason})")
    for unused in one.unused:
        report.warn(f"{name}: [audit.acknowledge] {unused} is of no package of the lock any more: remove it")
