"""The command line: parse, call one workflow, print, exit.

stdout is data, stderr is talk. Each command imports what it needs when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from builder.errors import EXIT_FAILED, EXIT_INTERRUPTED, DrydockError, UsageError

if TYPE_CHECKING:
    from builder import service as service_
    from builder.report import Reporter

_TRAILING = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="drydock-env", prog_name="drydock")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but warnings and errors.")
@click.option("--offline", is_flag=True, help="Use no network: only caches and folders of wheels.")
@click.pass_context
def cli(context: click.Context, quiet: bool, offline: bool) -> None:
    """Reproducible Python training environments for named hardware.

    A profile (TOML) and its lock are rendered into one shell script, which builds the environment in a
    content-addressed store and runs the trainer in it.

    \b
    drydock run auto        detect this machine, build its environment, train
    drydock build m4        build the environment of the profile m4
    drydock profile list    what there is to build
    """
    context.obj = quiet
    if offline:
        os.environ["UV_OFFLINE"] = "1"


def _report() -> Reporter:
    from builder.report import reporter

    return reporter(quiet=bool(click.get_current_context().obj))


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names given, else all profiles that can be built."""
    if names:
        return names
    from builder.catalogue import Catalogue

    catalogue = Catalogue()
    return tuple(name for name in catalogue.names() if catalogue.target(name) is not None)


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@cli.command()
@click.argument("name", default="auto")
@click.option("--cross", type=click.Path(path_type=Path), metavar="DIR", help="Materialise for the target into DIR.")
@click.option("--check", is_flag=True, help="Build it a second time and compare every byte.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")
def build(name: str, cross: Path | None, check: bool, dry_run: bool) -> None:
    """Build the environment of profile NAME (default: auto) and print its folder.

    With --cross, put the packages of a target that is not this machine into DIR, patched and checked.
    """
    if sum((cross is not None, check, dry_run)) > 1:
        raise UsageError("--cross, --check and --dry-run do not go together", hint="give one of them")
    if check:
        _check_build(name)
        return
    if cross is not None:
        from builder.cross import cross_build

        click.echo(cross_build(name, cross, _report()))
        return
    from builder import realise

    click.echo(realise.build(name, _report(), dry_run=dry_run))


def _check_build(name: str) -> None:
    from builder.reproduce import check_build

    report = _report()
    found = check_build(name, report)
    for one in found.differences:
        click.echo(f"{one}")
    if found.differences:
        raise DrydockError(f"the second build of {found.path.name} differs in {len(found.differences)} files")
    report.step(f"built twice, {found.files} files, {found.size / 1e6:.1f} MB: the same")
    click.echo(found.path)


class _Run(click.Command):
    _OWN = frozenset({"--supervise", "--status", "--logs", "--follow", "-f", "--stop", "--json"})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # `run -- --steps 5` has arguments and no name; click would take the first argument for it.
        if args[:1] == ["--"]:
            args = ["auto", *args]
        # `run cpu --supervise`: what stands after a name is the trainer's, unless all of it up to -- is ours.
        elif args[:1] and args[1:] and not args[0].startswith("-"):
            end = args.index("--") if "--" in args else len(args)
            if self._OWN.issuperset(args[1:end]) and not {"-f", "--json"}.issuperset(args[1:end]):
                args = [*args[1:end], args[0], *args[end:]]
        return super().parse_args(ctx, args)


@cli.command(cls=_Run, context_settings=_TRAILING)
@click.argument("name", default="auto")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--supervise", is_flag=True, help="Start it again when it fails; keep a log, and samples of what it uses."
)
@click.option("--status", is_flag=True, help="How the supervised run is.")
@click.option("--logs", is_flag=True, help="Print its log.")
@click.option("-f", "--follow", is_flag=True, help="With --logs: its last lines, and what is added.")
@click.option("--stop", is_flag=True, help="Stop it, and wait until it has ended.")
@_json
def run(
    name: str,
    arguments: tuple[str, ...],
    supervise: bool,
    status: bool,
    logs: bool,
    follow: bool,
    stop: bool,
    as_json: bool,
) -> None:
    """Run the trainer of profile NAME (default: auto), building its environment first if needed.

    ARGUMENTS after -- go to the trainer; its exit status is passed on. What is to be done about a failure, [supervise]
    in the profile says.
    """
    from builder import realise

    if sum((supervise, status, logs, stop)) > 1:
        raise UsageError("--supervise, --status, --logs and --stop do not go together", hint="give one of them")
    if (follow and not logs) or (as_json and not status):
        raise UsageError("-f goes with --logs, and --json with --status")
    report = _report()
    own = arguments[1:] if arguments[:1] == ("--",) else arguments
    if status or logs or stop:
        if own:
            raise UsageError(f"{own[0]} is for a trainer, and none is started here", hint="leave it out")
        _look_after(realise.resolve_auto(name, report), status=status, logs=logs, follow=follow, as_json=as_json)
    elif supervise:
        realise.supervise(name, own, report, quiet=bool(click.get_current_context().obj))
    else:
        realise.run(name, own, report)


def _look_after(name: str, *, status: bool, logs: bool, follow: bool, as_json: bool) -> None:
    from builder.supervise import runs

    if logs:
        for piece in runs.log(name, follow=follow):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    elif status:
        state = runs.status(name)
        if as_json:
            import json

            click.echo(json.dumps(state, indent=1))
            return
        for line in runs.told(state):
            click.echo(line)
    else:
        runs.stop(name, _report().step)


@cli.command()
@click.argument("name", default="auto")
@click.option("--scratch", is_flag=True, help="In a new writable environment on top of it, for experiments.")
def shell(name: str, scratch: bool) -> None:
    """Open a shell in the environment of profile NAME."""
    from builder import realise

    if scratch:
        realise.scratch(name, _report())
    realise.shell(name, _report())


@cli.command()
@click.argument("name", default="auto")
def verify(name: str) -> None:
    """Check a built environment: versions, every file, the machine, its accelerator, the proofs of its patches."""
    from builder import realise

    realise.verify(name, _report())


@cli.command()
@click.argument("names", nargs=-1)
@click.option("-P", "--upgrade", multiple=True, metavar="PKG", help="Take the newest PKG that fits. Repeatable.")
@click.option("-U", "--upgrade-all", is_flag=True, help="Take the newest of everything that fits.")
@click.option("--check", is_flag=True, help="Write nothing; fail where a lock is missing, stale or edited.")
@click.option("-n", "--dry-run", is_flag=True, help="Write nothing; show what would change.")
def lock(names: tuple[str, ...], upgrade: tuple[str, ...], upgrade_all: bool, check: bool, dry_run: bool) -> None:
    """Lock profiles for their targets, from any host (default: all that can be built).

    Versions stay as they are where they still fit the profile. Prints what changed.
    """
    from builder.relock import check_lock, relock

    report = _report()
    for name in _names(names):
        if check:
            report.step(f"{name}: {len(check_lock(name).packages)} packages, fresh")
            continue
        done = relock(name, report, upgrade=upgrade, upgrade_all=upgrade_all, dry_run=dry_run)
        for change in done.changes:
            click.echo(f"{name}: {change}")
        for override in done.lock.overrides if done.new else ():
            report.step(f"{name}: overridden: {override.requirement} ({override.reason})")
        state = "locked" if done.written else ("would be locked" if done.new else "is fresh")
        report.step(f"{name}: {state}, {len(done.lock.packages)} packages, {done.lock.size / 1e6:.0f} MB")


@cli.command()
@click.argument("names", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where to; default generated/NAME.")
@click.option("--check", is_flag=True, help="Write nothing; fail where a file differs from its profile.")
def render(names: tuple[str, ...], out: Path | None, check: bool) -> None:
    """Write the generated files of profiles: run script, env file, repair tools (default: all that can be built)."""
    from builder import generate
    from builder.catalogue import display

    if out is not None and len(names) != 1:
        raise UsageError("--out goes with exactly one profile", hint="drydock render NAME --out DIR")
    report = _report()
    for name in _names(names):
        folder = out or Path("generated") / name
        if check:
            generate.check(name, folder)
            report.step(f"{name}: {display(folder)} is up to date")
            continue
        changed = generate.generate(name, folder)
        for path in changed:
            click.echo(display(path))
        report.step(f"{name}: {len(changed)} files changed in {display(folder)}")


@cli.group()
def profile() -> None:
    """Look at profiles."""


@profile.command("list")
@_json
def profile_list(as_json: bool) -> None:
    """List all profiles with their targets."""
    from builder.catalogue import Catalogue
    from builder.profile import load_part

    catalogue = Catalogue()
    parts = [load_part(name, catalogue.source(name)) for name in catalogue.names()]
    if as_json:
        import json

        rows = [
            {
                "name": part.name,
                "description": part.description,
                "platform": part.target.platform if part.target else None,
                "accelerator": part.target.accelerator if part.target else None,
                "file": str(catalogue.path(part.name)),
            }
            for part in parts
        ]
        click.echo(json.dumps(rows, indent=1))
        return
    width = max(len(part.name) for part in parts)
    for part in parts:
        target = f"{part.target.platform}, {part.target.accelerator}" if part.target else "to extend"
        click.echo(f"{part.name:<{width}}  {target:<19}  {part.description}")


@profile.command("show")
@click.argument("name")
@_json
def profile_show(name: str, as_json: bool) -> None:
    """Show profile NAME as it is after `extends`."""
    from builder.catalogue import Catalogue

    catalogue = Catalogue()
    whole = catalogue.profile(name)
    data = whole.model_dump(by_alias=True, exclude_none=True, exclude={"extends"})
    if as_json:
        import json

        click.echo(json.dumps(data, indent=1))
    else:
        import tomli_w

        click.echo(tomli_w.dumps(data), nl=False)


@profile.command("check")
@click.argument("names", nargs=-1)
def profile_check(names: tuple[str, ...]) -> None:
    """Check profiles, their environment variables, their files and their locks (default: all)."""
    from builder.catalogue import Catalogue
    from builder.profile import load_part, settings_warnings

    catalogue = Catalogue()
    report = _report()
    for name in names or catalogue.names():
        for where, finding in settings_warnings(name, catalogue.source):
            report.warn(f"{where}: {finding} [{finding.code}]")
        if load_part(name, catalogue.source(name)).target is None:
            report.step(f"{name}: good, to extend")
        else:
            report.step(f"{name}: good, {catalogue.plan(name).key}")


@profile.command("settings")
@click.argument("names", metavar="[VARIABLE]...", nargs=-1)
@_json
def profile_settings(names: tuple[str, ...], as_json: bool) -> None:
    """List the environment variables that are known (default: all): who reads them, what is allowed, the default."""
    from builder.settings import KNOWN

    for name in names:
        if name not in KNOWN:
            raise UsageError(f"{name} is not a variable that is known here", hint="drydock profile settings")
    rows = [KNOWN[name] for name in names or KNOWN]
    if as_json:
        import json

        click.echo(json.dumps([row.as_json() for row in rows], indent=1))
        return
    width = max(len(row.name) for row in rows)
    for row in rows:
        default = "" if row.default is None else f"; default {row.default or 'unset'}"
        click.echo(f"{row.name:<{width}}  {row.reader}, at {row.when}: {row.allowed}{default}")


@profile.command("detect")
@_json
def profile_detect(as_json: bool) -> None:
    """Show this machine, the profile that `auto` picks for it, and why."""
    from builder import probe, realise

    machine = probe.detect()
    choices = realise.choices(machine)
    picked = next((name for name, fit in choices.items() if fit.score is not None), None)
    if as_json:
        import json
        from dataclasses import asdict

        profiles = {name: {"fits": fit.score is not None, "why": fit.why} for name, fit in choices.items()}
        found = {**asdict(machine), "platform": machine.platform, "detected": machine.detected}
        click.echo(json.dumps({**found, "auto": picked, "profiles": profiles}, indent=1))
        return
    for line in machine.lines():
        click.echo(line)
    click.echo(f"auto: {picked} ({choices[picked].why})" if picked else "auto: no profile fits")
    for name, fit in choices.items():
        if name != picked:
            click.echo(f"  not {name}: {fit.why}{'' if fit.score is None else ', which is less particular'}")


@cli.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@_json
def diff(before: str, after: str, as_json: bool) -> None:
    """Show what differs from A to B: packages, patches, overrides; of two profiles also target, variables, trainer.

    Each of them is a profile (m4), a generation (m4@2), the path of a lock, or a lock in git (HEAD~1:m4).
    """
    from builder.difference import compare
    from builder.sides import side

    report = _report()
    found = compare(side(before, report), side(after, report))
    if as_json:
        import json

        click.echo(json.dumps(found.as_json(), indent=1))
        return
    for line in found.lines():
        click.echo(line)
    if found.unknown:
        report.step(f"not known of both, so not compared: {', '.join(found.unknown)}")


@cli.command("why")
@click.argument("name")
@click.argument("package")
@_json
def why_(name: str, package: str, as_json: bool) -> None:
    """Show why PACKAGE is in the lock of profile NAME: every path from what the profile requires.

    NAME can also be the path of a lock, or a lock in git (HEAD~1:m4).
    """
    from builder.sides import side
    from builder.why import why

    lock = side(name, _report()).lock
    if lock is None:
        raise UsageError(f"{name} does not keep who requires what", hint="ask the lock of a profile")
    found = why(name, lock, package)
    if as_json:
        import json

        click.echo(json.dumps(found.as_json(), indent=1))
        return
    for line in found.lines():
        click.echo(line)


@cli.group()
def generation() -> None:
    """Go back and forth between the environments that a profile stood for."""


@generation.command("list")
@click.argument("name")
@_json
def generation_list(name: str, as_json: bool) -> None:
    """List the generations of profile NAME: number, date, key, what changed."""
    from builder import generations, history

    rows = history.told(generations.generations(name))
    if as_json:
        import json

        click.echo(json.dumps([row.as_json() for row in rows], indent=1))
        return
    for row in rows:
        click.echo(str(row))


@generation.command("rollback")
@click.argument("name")
def generation_rollback(name: str) -> None:
    """Make the generation before the current one of NAME current again, until the next build."""
    from builder import generations

    click.echo(f"{name} is generation {generations.rollback(name).number}")


@generation.command("switch")
@click.argument("name")
@click.argument("number", type=int)
def generation_switch(name: str, number: int) -> None:
    """Make generation NUMBER of NAME the current one."""
    from builder import generations

    click.echo(f"{name} is generation {generations.switch(name, number).number}")


@generation.command("delete")
@click.argument("name")
@click.argument("which", nargs=-1, required=True)
def generation_delete(name: str, which: tuple[str, ...]) -> None:
    """Delete generations of NAME: numbers, `old` (all but the current one), or an age such as 30d.

    Their environments stay until `drydock store gc`, and a build brings a generation back.
    """
    from builder import generations

    for one in generations.delete(name, which):
        click.echo(f"deleted generation {one.number} of {name}")


@cli.group()
def service() -> None:
    """Have the machine start a supervised run."""


_manager = click.option(
    "--manager", type=click.Choice(["systemd", "launchd"]), help="For another system (default: that of this machine)."
)


@service.command("install")
@click.argument("name")
@click.option("--print", "as_text", is_flag=True, help="Write nothing; print the file.")
@_manager
def service_install(name: str, as_text: bool, manager: service_.Manager | None) -> None:
    """Write the user unit of systemd, or the agent of launchd, that supervises profile NAME from this folder."""
    from builder import service as service_

    kind = manager or service_.manager()
    if as_text:
        click.echo(service_.text(name, kind), nl=False)
        return
    file = service_.install(name, kind)
    click.echo(file)
    for step in service_.steps(file, kind):
        _report().step(step)


@service.command("uninstall")
@click.argument("name")
@_manager
def service_uninstall(name: str, manager: service_.Manager | None) -> None:
    """Remove what `install` wrote; a run that is under way goes on."""
    from builder import service as service_

    click.echo(service_.uninstall(name, manager or service_.manager()))


@cli.group()
def store() -> None:
    """Look after the store."""


@store.command("gc")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option("--max-age", metavar="AGE", help="Keep what was built more recently, for instance 30d.")
@click.option(
    "--max-size", metavar="SIZE", help="Delete no more than is needed to come down to SIZE, for instance 20G."
)
@_json
def store_gc(dry_run: bool, max_age: str | None, max_size: str | None, as_json: bool) -> None:
    """Delete what nothing needs: environments without a generation, script or process, and what belongs to them."""
    from builder import garbage

    try:
        age = garbage.parse_age(max_age) if max_age else None
        size = garbage.parse_size(max_size) if max_size else None
    except ValueError as error:
        raise UsageError(str(error)) from None
    deleted = garbage.collect(dry_run=dry_run, max_age=age, max_size=size)
    if as_json:
        import json

        rows = [{"path": str(one.path), "why": one.why, "size": one.size} for one in deleted]
        click.echo(json.dumps(rows, indent=1))
    else:
        for one in deleted:
            if one.path.suffix != ".pyc":
                click.echo(f"{one.path.name}: {one.why}")
    _report().step(f"{'would free' if dry_run else 'freed'}: {garbage.summary(deleted)}")


@store.command("du")
@_json
def store_du(as_json: bool) -> None:
    """Show how much the store takes: each environment as if it were alone, its own part, and the real whole."""
    from builder.usage import usage

    total = usage()
    if as_json:
        import json
        from dataclasses import asdict

        click.echo(json.dumps(asdict(total), indent=1))
        return
    for row in total.environments:
        click.echo(f"{row.apparent / 1e6:10.1f} MB  own {row.own / 1e6:8.1f} MB  {row.files:7} files  {row.store_name}")
    click.echo(f"{total.bytecode / 1e6:10.1f} MB  shared bytecode")
    click.echo(f"{total.real / 1e6:10.1f} MB  really, of {total.apparent / 1e6:.1f} MB: a hard link counts once")


@store.command("verify")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--repair", is_flag=True, help="Build what is damaged again, from its lock, and put it in place.")
@_json
def store_verify(keys: tuple[str, ...], repair: bool, as_json: bool) -> None:
    """Check every file of the store, or of the environments whose KEY begins so: changed, missing, extra.

    Unlike `drydock verify NAME` it runs nothing of an environment: no proofs.
    """
    from builder.repair import verify_store

    outcomes = []
    for one in verify_store(keys, _report(), repair=repair):
        outcomes.append(one)
        if as_json:
            continue
        word = "ok  " if not one.problems else ("mended" if one.mended else "FAIL")
        click.echo(f"{word} {one.store_name}: {one.files} files, {one.size / 1e6:.1f} MB")
        for problem in one.problems[:20]:
            click.echo(f"       {problem}")
        if len(one.problems) > 20:
            click.echo(f"       and {len(one.problems) - 20} more: --json has them all")
    if as_json:
        import json

        click.echo(json.dumps([one.as_json() for one in outcomes], indent=1))
    bad = [one for one in outcomes if not one.good]
    if bad:
        raise DrydockError(
            f"{len(bad)} of {len(outcomes)} are not as they were built", hint="drydock store verify --repair"
        )


def main() -> NoReturn:
    """The program `drydock`: every error of the user's becomes words and an exit status, never a traceback."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        code = cli.main(prog_name="drydock", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except DrydockError as error:
        from builder.report import explain

        click.echo(explain(error), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        # A reader of our stdout that has gone (`drydock profile list | head`) is click's business; this is the rest.
        if error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        click.echo(f"error: {error.filename or 'stdout'}: {error.strerror}", err=True)
        sys.exit(EXIT_FAILED)


def _stop(number: int, _frame: object) -> NoReturn:
    """Ends the program as an exception does, so that what is half-done is removed on the way out."""
    sys.exit(128 + number)
