"""`drydock profile`."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import click

from builder.cli import complete
from builder.cli.common import catalogue, echo_json, json_option, reporter
from builder.errors import UsageError
from builder.names import meant


@click.group()
def profile() -> None:
    """Look at profiles."""


@profile.command("list")
@json_option
def profile_list(as_json: bool) -> None:
    """List all profiles with their targets.

    The project's own come first, then those of sources, then the built-in ones, and parts to extend last.
    """
    from builder.cli.tables import show_table
    from builder.project.listing import summaries

    rows = summaries(catalogue(), reporter().warn)
    if as_json:
        echo_json([{**vars(row), "file": str(row.file)} for row in rows])
        return
    targets = {row.name: f"{row.platform}, {row.accelerator}" if row.platform else "to extend" for row in rows}
    show_table(("PROFILE", "FOR", "WHAT IT IS"), [(row.name, targets[row.name], row.description) for row in rows])
    if sys.stdout.isatty():
        reporter().step("drydock profile detect says which one is for this machine, and why")


@profile.command("show")
@click.argument("name", shell_complete=complete.profiles)
@json_option
def profile_show(name: str, as_json: bool) -> None:
    """Show a profile as it is after `extends`."""
    whole = catalogue().profile(name)
    data = whole.model_dump(by_alias=True, exclude_none=True, exclude={"extends"})
    if as_json:
        echo_json(data)
    else:
        import tomli_w

        click.echo(tomli_w.dumps(data), nl=False)


@profile.command("check")
@click.argument("names", nargs=-1, shell_complete=complete.profiles)
def profile_check(names: tuple[str, ...]) -> None:
    """Check profiles: keys, variables, files, locks.

    Without NAMES, all profiles.
    """
    report = reporter()
    for name in names or catalogue().names():
        entry = catalogue().entry(name)
        for where, finding in entry.warnings():
            report.warn(f"{where}: {finding} [{finding.code}]")
        if entry.own.model.target is None:
            report.step(f"{name}: good, to extend")
        else:
            report.step(f"{name}: good, {entry.plan.key}")


@profile.command("schema")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="Where to write (default: stdout).")
@click.option("--check", is_flag=True, help="Write nothing; fail if FILE is not up to date.")
def profile_schema(out: Path | None, check: bool) -> None:
    """Print the JSON Schema of profiles, or write it to a file.

    Beside a profile whose first line is `#:schema ./profile.schema.json`, editors with taplo complete and check it.
    """
    from builder.profile.schema import FILE, text
    from builder.project import schema

    if out is None:
        if check:
            raise UsageError("--check goes with --out", hint=f"drydock profile schema --check -o profiles/{FILE}")
        click.echo(text(), nl=False)
    elif check:
        schema.check(out)
        reporter().step(f"{out} is up to date")
    elif schema.write(out):
        click.echo(out)
    else:
        reporter().step(f"{out} is up to date")


@profile.command("settings")
@click.argument("names", metavar="[VARIABLE]...", nargs=-1, shell_complete=complete.variables)
@json_option
def profile_settings(names: tuple[str, ...], as_json: bool) -> None:
    """List the environment variables that the linter knows.

    Prints for each VARIABLE (default: all) which library reads it and when, what is allowed, and the default.
    """
    from builder.cli.tables import show_table
    from builder.profile.variables import KNOWN

    for name in names:
        if name not in KNOWN:
            raise UsageError(
                f"{name} is not a known variable", hint=meant(name, KNOWN) or "to list them: drydock profile settings"
            )
    rows = [KNOWN[name] for name in names or KNOWN]
    if as_json:
        echo_json([row.as_json() for row in rows])
        return
    cells = []
    for row in rows:
        default = "" if row.default is None else f"; default {row.default or 'unset'}"
        cells.append((row.name, f"{row.reader}, at {row.when}: {row.allowed}{default}"))
    show_table(("VARIABLE", "WHO READS IT"), cells)


@profile.command("detect")
@json_option
def profile_detect(as_json: bool) -> None:
    """Show this machine, and which profile `auto` picks."""
    from builder.machine import detect
    from builder.project.auto import choices, unused
    from builder.project.discovery import own_profile_folders, profile_names
    from builder.store.layout import home

    disk = None
    with suppress(UsageError):  # no place for a store is no reason to say nothing
        disk = home()
    machine = detect(disk=disk)
    fits = choices(machine, catalogue())
    picked = next((name for name, fit in fits.items() if fit.score is not None), None)
    if as_json:
        from dataclasses import asdict

        profiles = {name: {"fits": fit.score is not None, "why": fit.why} for name, fit in fits.items()}
        found = {**asdict(machine), "platform": machine.platform, "detected": machine.detected}
        left = unused(picked, machine, catalogue(), fits) if picked else ""
        echo_json({**found, "auto": picked, "unused": left, "profiles": profiles})
        return
    from builder.cli.tables import flowing

    for line in machine.lines():
        click.echo(flowing(line, 2))
    click.echo(f"auto: {picked} ({fits[picked].why})" if picked else "auto: no profile fits")
    if picked and (left := unused(picked, machine, catalogue(), fits)):
        click.echo(f"unused: {left}")
    own = profile_names(own_profile_folders())
    for name, fit in fits.items():
        if name != picked:
            less = "built in" if picked in own and name not in own else "less particular"
            click.echo(flowing(f"  not {name}: {fit.why}{'' if fit.score is None else f', which is {less}'}", 4))
