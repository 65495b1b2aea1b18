"""`drydock audit`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli import complete
from builder.cli.common import catalogue, echo_json, json_option, names_or_all, reporter
from builder.embedded.words import plural
from builder.errors import DrydockError, ToolError, UsageError

if TYPE_CHECKING:
    from builder.lock.audit import Advisory, Audit


@click.command()
@click.argument("names", nargs=-1, shell_complete=complete.profiles)
@click.option("--service", metavar="URL", help="Ask OSV's API at this place.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    metavar="PATH",
    help="Ask nobody; look into a copy of OSV's data, a folder or a .zip.",
)
@json_option
def audit(names: tuple[str, ...], service: str | None, data: Path | None, as_json: bool) -> None:
    """List known vulnerabilities of locked packages.

    Asks OSV (osv.dev) by uv, or looks into a copy of its data. What a profile accepts stands there with its reason:
    [audit.acknowledge]. Ends with 1 where anything else is found, and where it could not be asked. Without NAMES, all
    profiles of this project.
    """
    if service is not None and data is not None:
        raise UsageError("--service and --data exclude each other", hint="--data asks nobody")
    report = reporter()
    found: dict[str, Audit] = {}
    asked: dict[tuple[tuple[str, str], ...], list[Advisory]] = {}
    for name in names_or_all(names):
        with report.busy(f"asking for vulnerabilities of {name}"):
            found[name] = _audit(name, service, data, asked)
    if as_json:
        echo_json({name: one.as_json() for name, one in found.items()})
    else:
        for name, one in found.items():
            _say(name, one)
    bad = {name: one for name, one in found.items() if one.found}
    if bad:
        raise DrydockError(
            f"{_counted(sum(len(one.found) for one in bad.values()))} in {', '.join(bad)}",
            hint=f"newer versions: drydock update; one that is accepted: [audit.acknowledge] in {next(iter(bad))}.toml",
        )


def _audit(
    name: str, service: str | None, data: Path | None, asked: dict[tuple[tuple[str, str], ...], list[Advisory]]
) -> Audit:
    from builder import uv
    from builder.lock.advisories import of_copy
    from builder.lock.audit import audited, of_uv, packages

    entry = catalogue().entry(name)
    entry.check_fresh()
    profile, lock = entry.profile, entry.lock
    wanted = tuple(packages(lock))
    if wanted not in asked:
        if data is not None:
            asked[wanted] = of_copy(data, wanted)
        else:
            try:
                with tempfile.TemporaryDirectory(prefix="drydock-audit-") as work:
                    asked[wanted] = of_uv(uv.audit(wanted, profile.python.series, Path(work), service))
            except ToolError as error:
                raise ToolError(
                    f"nothing is known of the packages of {name}, as OSV was not reached. {error.message}",
                    hint="--service URL names a mirror of its API, --data PATH a copy of its data",
                ) from None
    return audited(profile, lock, asked[wanted])


def _counted(count: int) -> str:
    return f"{count or 'no'} known vulnerabilit{'ies' if count > 1 else 'y'}"


def _say(name: str, one: Audit) -> None:
    report = reporter()
    known = f", {len(one.acknowledged)} acknowledged" if one.acknowledged else ""
    report.step(f"{name}: {plural(one.packages, 'package')}, {_counted(len(one.found))}{known}")
    for advisory in one.found:
        click.echo(f"FAIL {advisory}")
    for advisory, reason in one.acknowledged:
        click.echo(f"ok   {advisory} (acknowledged: {reason})")
    for unused in one.unused:
        report.warn(f"{name}: [audit.acknowledge] {unused} is of no package of the lock any more: remove it")
