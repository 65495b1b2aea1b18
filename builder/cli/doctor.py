"""`drydock doctor`."""

from __future__ import annotations

import click

from builder.cli.common import PROFILE, catalogue, command, echo_json, json_option, reporter, show
from builder.errors import EXIT_FAILED


@click.command()
@click.argument("name", default="auto", type=PROFILE)
@click.option("--network", is_flag=True, help="Also ask the indexes, and compare clocks with them.")
@click.option("--full", is_flag=True, help="Also verify the environment: every file, and the proofs of the patches.")
@json_option
@click.pass_context
def doctor(context: click.Context, name: str, network: bool, full: bool, as_json: bool) -> None:
    """Check this machine against a profile, and name the fixes.

    Says whether the profile can be built and run here. NAME defaults to auto. Exits with 1 where a check fails; a
    warning is not a failure.
    """
    from builder.check.doctor import examine, ill
    from builder.report import waiting

    with waiting(reporter(), "looking at this machine"):
        found = examine(name, catalogue(), command().machine, reporter(), ask_network=network, full=full)
    failed = ill(found.diagnoses)
    if as_json:
        from dataclasses import asdict

        echo_json({"profile": found.name, "ok": not failed, "diagnoses": [asdict(one) for one in found.diagnoses]})
    else:
        from builder.cli.tables import flowing

        for one in found.diagnoses:
            found_line, *fixes = one.lines()
            show(flowing(found_line, 5))
            for fix in fixes:  # what is to be copied stays a line
                show(fix)
    if failed:
        context.exit(EXIT_FAILED)
