"""`drydock audit`."""

from __future__ import annotations

from pathlib import Path

import click

from builder.cli import complete
from builder.cli.common import PROFILE, catalogue, echo_json, json_option, reporter
from builder.embedded.words import plural
from builder.errors import EXIT_FAILED


@click.command()
@click.argument("name", type=PROFILE, default="auto", shell_complete=complete.profiles)
@click.option(
    "--advisories",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="OSV's PyPI/all.zip, or a folder of its files.",
)
@json_option
@click.pass_context
def audit(context: click.Context, name: str, advisories: Path, as_json: bool) -> None:
    """Look for known vulnerabilities of what is locked.

    NAME defaults to auto. Exits with 1 where there is one that the profile does not acknowledge, in
    [packages.acknowledge], and where the advisories cannot be read whole.
    """
    from builder.check.audit import audit as look

    entry = catalogue().entry(name)
    entry.check_fresh()
    found = look(entry.lock, advisories, entry.profile.packages.acknowledge)
    if as_json:
        from dataclasses import asdict

        echo_json({"profile": name, "ok": not found.open, **asdict(found)})
    for one in () if as_json else found.findings:
        fixed = f"fixed in {', '.join(one.fixed)}" if one.fixed else "no release repairs it"
        words = f"{one.package} {one.version}: {', '.join(one.names)}: {one.summary} ({fixed})"
        line = f"{'known' if one.reason else 'FOUND'} {words}{f'; acknowledged: {one.reason}' if one.reason else ''}"
        click.echo(line if line.isprintable() else ascii(line))
    for needless in found.needless:
        reporter().warn(f"{needless} is acknowledged, and is about nothing that is locked")
    known = len(found.findings) - len(found.open)
    reporter().step(
        f"{plural(found.asked, 'package')} looked for in {found.advisories:,} advisories, "
        f"the newest of {found.newest or 'no day'}: {len(found.open)} open, {known} known"
    )
    if found.open:
        context.exit(EXIT_FAILED)
