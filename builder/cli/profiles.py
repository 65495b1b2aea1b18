"""Look at profiles, lock them, render them, compare them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from builder.cli import complete
from builder.cli.common import agreed, echo_json, json_option, names_or_all, reporter, yes_option
from builder.errors import UsageError


@click.group()
def profile() -> None:
    """Look at profiles."""


@profile.command("list")
@json_option
def profile_list(as_json: bool) -> None:
    """List all profiles with their targets."""
    from builder.catalogue import Catalogue
    from builder.summary import summaries

    report = reporter()
    rows = summaries(Catalogue(step=report.step), report.warn)
    if as_json:
        echo_json([{**vars(row), "file": str(row.file)} for row in rows])
        return
    width = max(len(row.name) for row in rows)
    lines = []
    for row in rows:
        target = f"{row.platform}, {row.accelerator}" if row.platform else "to extend"
        lines.append(f"{row.name:<{width}}  {target:<19}  {row.description}")
    click.echo("\n".join(lines))


@profile.command("show")
@click.argument("name", shell_complete=complete.profiles)
@json_option
def profile_show(name: str, as_json: bool) -> None:
    """Show profile NAME as it is after `extends`."""
    from builder.catalogue import Catalogue

    catalogue = Catalogue()
    whole = catalogue.profile(name)
    data = whole.model_dump(by_alias=True, exclude_none=True, exclude={"extends"})
    if as_json:
        echo_json(data)
    else:
        import tomli_w

        click.echo(tomli_w.dumps(data), nl=False)


@profile.command("check")
@click.argument("names", nargs=-1, shell_complete=complete.profiles)
def profile_check(names: tuple[str, ...]) -> None:
    """Check profiles, their environment variables, their files and their locks (default: all)."""
    from builder.catalogue import Catalogue
    from builder.profile import load_part, settings_warnings

    catalogue = Catalogue()
    report = reporter()
    for name in names or catalogue.names():
        for where, finding in settings_warnings(name, catalogue.source):
            report.warn(f"{where}: {finding} [{finding.code}]")
        if load_part(name, catalogue.source(name)).target is None:
            report.step(f"{name}: good, to extend")
        else:
            report.step(f"{name}: good, {catalogue.plan(name).key}")


@profile.command("schema")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="Where to; default: print it.")
@click.option("--check", is_flag=True, help="Write nothing; fail where FILE is not what it should be.")
def profile_schema(out: Path | None, check: bool) -> None:
    """Print the JSON Schema of profiles, or write it into FILE.

    Beside a profile whose first line is `#:schema ./profile.schema.json`, editors with taplo complete and check it.
    """
    from builder import schema

    if out is None:
        if check:
            raise UsageError(
                "--check goes with --out", hint=f"drydock profile schema --check -o profiles/{schema.FILE}"
            )
        click.echo(schema.text(), nl=False)
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
    """List the environment variables that are known (default: all): who reads them, what is allowed, the default."""
    from builder.settings import KNOWN

    for name in names:
        if name not in KNOWN:
            raise UsageError(f"{name} is not a variable that is known here", hint="drydock profile settings")
    rows = [KNOWN[name] for name in names or KNOWN]
    if as_json:
        echo_json([row.as_json() for row in rows])
        return
    width = max(len(row.name) for row in rows)
    for row in rows:
        default = "" if row.default is None else f"; default {row.default or 'unset'}"
        click.echo(f"{row.name:<{width}}  {row.reader}, at {row.when}: {row.allowed}{default}")


@profile.command("detect")
@json_option
def profile_detect(as_json: bool) -> None:
    """Show this machine, the profile that `auto` picks for it, and why."""
    from builder import probe, realise
    from builder.folders import own_profile_folders, profile_names

    machine = probe.detect()
    choices = realise.choices(machine)
    picked = next((name for name, fit in choices.items() if fit.score is not None), None)
    if as_json:
        from dataclasses import asdict

        profiles = {name: {"fits": fit.score is not None, "why": fit.why} for name, fit in choices.items()}
        found = {**asdict(machine), "platform": machine.platform, "detected": machine.detected}
        echo_json({**found, "auto": picked, "profiles": profiles})
        return
    for line in machine.lines():
        click.echo(line)
    click.echo(f"auto: {picked} ({choices[picked].why})" if picked else "auto: no profile fits")
    own = profile_names(own_profile_folders())
    for name, fit in choices.items():
        if name != picked:
            less = "built in" if picked in own and name not in own else "less particular"
            click.echo(f"  not {name}: {fit.why}{'' if fit.score is None else f', which is {less}'}")


@click.command()
@click.argument("names", nargs=-1, shell_complete=complete.profiles)
@click.option("-P", "--upgrade", multiple=True, metavar="PKG", help="Take the newest PKG that fits. Repeatable.")
@click.option("-U", "--upgrade-all", is_flag=True, help="Take the newest of everything that fits.")
@click.option("--check", is_flag=True, help="Write nothing; fail where a lock is missing, stale or edited.")
@click.option("-n", "--dry-run", is_flag=True, help="Write nothing; show what would change.")
@yes_option
def lock(
    names: tuple[str, ...], upgrade: tuple[str, ...], upgrade_all: bool, check: bool, dry_run: bool, yes: bool
) -> None:
    """Lock profiles for their targets, from any host (default: all of this project).

    Versions stay as they are where they still fit the profile. Prints what changed.
    """
    from builder.relock import check_lock, relock

    report = reporter()
    for name in names_or_all(names):
        if check:
            report.step(f"{name}: {len(check_lock(name).packages)} packages, fresh")
            continue
        again = partial(relock, name, report, upgrade=upgrade, upgrade_all=upgrade_all, dry_run=dry_run)
        done = agreed(again, yes=yes)
        for change in done.changes:
            click.echo(f"{name}: {change}")
        for override in done.lock.overrides if done.new else ():
            report.step(f"{name}: overridden: {override.requirement} ({override.reason})")
        state = "locked" if done.written else ("would be locked" if done.new else "is fresh")
        report.step(f"{name}: {state}, {len(done.lock.packages)} packages, {done.lock.size / 1e6:.0f} MB")


@click.command()
@click.argument("names", nargs=-1, shell_complete=complete.profiles)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where to; default generated/NAME.")
@click.option("--check", is_flag=True, help="Write nothing; fail where a file differs from its profile.")
@click.option("--standalone", is_flag=True, help="Make the tool for virtual environments whole, to be copied alone.")
def render(names: tuple[str, ...], out: Path | None, check: bool, standalone: bool) -> None:
    """Write the generated files of profiles: run script, env file, repair tools (default: all of this project)."""
    from builder import generate
    from builder.catalogue import display
    from builder.names import stem

    if out is not None and len(names) != 1:
        raise UsageError("--out goes with exactly one profile", hint="drydock render NAME --out DIR")
    report = reporter()
    for name in names_or_all(names):
        folder = out or Path("generated") / stem(name)
        if check:
            generate.check(name, folder, standalone=standalone)
            report.step(f"{name}: {display(folder)} is up to date")
            continue
        changed = generate.generate(name, folder, standalone=standalone)
        for path in changed:
            click.echo(display(path))
        report.step(f"{name}: {len(changed)} files changed in {display(folder)}")


@click.command()
@click.argument("before", metavar="A", shell_complete=complete.profiles)
@click.argument("after", metavar="B", shell_complete=complete.profiles)
@json_option
def diff(before: str, after: str, as_json: bool) -> None:
    """Show what differs from A to B: packages, patches, overrides; of two profiles also target, variables, trainer.

    Each of them is a profile (m4), a generation (m4@2), the path of a lock, or a lock in git (HEAD~1:m4).
    """
    from builder.difference import compare
    from builder.sides import side

    report = reporter()
    found = compare(side(before, report), side(after, report))
    if as_json:
        echo_json(found.as_json())
        return
    for line in found.lines():
        click.echo(line)
    if found.unknown:
        report.step(f"not known of both, so not compared: {', '.join(found.unknown)}")


@click.command()
@click.argument("name", shell_complete=complete.profiles)
@click.argument("package", shell_complete=complete.packages)
@json_option
def why(name: str, package: str, as_json: bool) -> None:
    """Show why PACKAGE is in the lock of profile NAME: every path from what the profile requires.

    NAME can also be the path of a lock, or a lock in git (HEAD~1:m4).
    """
    from builder.sides import side
    from builder.why import why as paths

    lock = side(name, reporter()).lock
    if lock is None:
        raise UsageError(f"{name} does not keep who requires what", hint="ask the lock of a profile")
    found = paths(name, lock, package)
    if as_json:
        echo_json(found.as_json())
        return
    for line in found.lines():
        click.echo(line)
