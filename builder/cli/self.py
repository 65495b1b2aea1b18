"""`drydock self` and `drydock report`: about this program."""

from __future__ import annotations

from pathlib import Path

import click

from builder.cli.common import PROFILE, catalogue, command, echo_json, json_option, reporter
from builder.errors import EXIT_FAILED


@click.group("self")
def self() -> None:
    """Show which Drydock this is, and whether there is a newer one."""


@self.command("version")
@click.option("--check", is_flag=True, help="Ask the index for a newer one; exit with 1 where there is one.")
@json_option
@click.pass_context
def self_version(context: click.Context, check: bool, as_json: bool) -> None:
    """Print the version."""
    from builder.check.version import how_to_upgrade, newer
    from builder.report import waiting
    from builder.resources import DISTRIBUTION, version

    found = []
    if check:
        with waiting(reporter(), "asking the index"):
            found = newer(command().machine)
    if as_json:
        echo_json({"version": version(), "newer": found if check else None})
    else:
        click.echo(f"{DISTRIBUTION} {version()}")
        if found:
            reporter().warn(f"there is {found[-1]}; to upgrade: {how_to_upgrade()}")
        elif check:
            reporter().step("the index has no newer one")
    if found:
        context.exit(EXIT_FAILED)


@click.command()
@click.argument("name", default="auto", type=PROFILE)
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="Where to write (default: stdout).")
def report(name: str, out: Path | None) -> None:
    """Collect versions, checks and the last log, for an issue.

    As Markdown: versions, this machine, settings, what the doctor says of NAME (default: auto), and the log of the
    last failure; without secrets, ~ for the home folder. Read it before you send it.
    """
    from builder.check.report import report as collect
    from builder.files import write_new
    from builder.report import waiting

    with waiting(reporter(), "looking at this machine"):
        text = collect(name, catalogue(), command().machine, reporter())
    if out is None:
        click.echo(text, nl=False)
    else:
        write_new(out, text)
        reporter().step(f"wrote {out}; read it before you send it")
