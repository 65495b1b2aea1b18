"""`drydock doctor`."""

from __future__ import annotations

import click

from builder.cli.common import PROFILE, catalogue, command, echo_json, json_option, reporter
from builder.errors import EXIT_FAILED


@click.command()
@click.argument("name", default="auto", type=PROFILE)
@click.option("--network", is_flag=True, help="Ask the indexes too, and compare clocks with them.")
@click.option("--full", is_flag=True, help="Verify the environment too: every file, the proofs of the patches.")
@json_option
@click.pass_context
def doctor(context: click.Context, name: str, network: bool, full: bool, as_json: bool) -> None:
    """Check this machine against profile NAME (default: auto): whether it can be built and run, and how to mend it.

    Exit status 1 where something fails; warnings fail nothing.
    """
    from builder.check.doctor import examine, ill

    found = examine(name, catalogue(), command().machine, reporter(), ask_network=network, full=full)
    failed = ill(found.diagnoses)
    if as_json:
        from dataclasses import asdict

        echo_json({"profile": found.name, "ok": not failed, "diagnoses": [asdict(one) for one in found.diagnoses]})
    else:
        for one in found.diagnoses:
            for line in one.lines():
                click.echo(line)
    if failed:
        context.exit(EXIT_FAILED)
