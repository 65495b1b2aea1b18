"""Build an environment, run in it, look into it."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from builder.cli import complete
from builder.cli.common import PROFILE, agreed, catalogue, command, echo_json, json_option, reporter, yes_option
from builder.embedded.words import plural
from builder.errors import DrydockError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@click.command()
@click.argument("name", default="auto", type=PROFILE, shell_complete=complete.profiles)
@click.option(
    "--cross", type=click.Path(path_type=Path), metavar="DIR", help="Write the packages for the target into DIR."
)
@click.option("--check", is_flag=True, help="Build a second time and compare every byte.")
@click.option("-n", "--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@yes_option
def build(name: str, cross: Path | None, check: bool, dry_run: bool, yes: bool) -> None:
    """Build the environment of a profile and print its folder.

    NAME is a profile, or auto (the default) for the one that fits this machine. With --cross, write the packages for
    the profile's target into DIR, patched and checked, whatever this machine is.
    """
    if sum((cross is not None, check, dry_run)) > 1:
        raise UsageError("--cross, --check and --dry-run do not go together", hint="use one of them")
    if check:
        _check_build(name, yes=yes)
        return
    if cross is not None:
        from builder.build.cross import cross_build

        click.echo(agreed(lambda: cross_build(name, cross, catalogue(), reporter()), yes=yes))
        return
    from builder.build.build import build as build_environment

    click.echo(agreed(lambda: build_environment(name, catalogue(), reporter(), dry_run=dry_run), yes=yes))


def _check_build(name: str, *, yes: bool) -> None:
    from builder.check.reproduce import check_build

    report = reporter()
    found = agreed(lambda: check_build(name, catalogue(), report), yes=yes)
    for one in found.differences:
        click.echo(f"{one}")
    if found.differences:
        raise DrydockError(f"the second build of {found.path.name} differs in {plural(len(found.differences), 'file')}")
    report.step(f"built twice, {plural(found.files, 'file')}, {found.size / 1e6:.1f} MB: the same")
    click.echo(found.path)


UNNAMED = "drydock.unnamed"
"""In the context of a command: whether no profile was named."""


class Dashed(click.Command):
    """A command whose words after `--` are a program's, as in the generated script; before it, all is ours."""

    after = ""
    """What goes after the dashes, for an error."""
    own = 0
    """How many words before the dashes are ours, after the name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        own, theirs = args[:end], args[end + 1 :]
        try:
            left = super().parse_args(ctx, own)
        except click.NoSuchOption as error:
            near = f"did you mean {error.possibilities[0]}? " if error.possibilities else ""
            raise self._refused(ctx, error.option_name, "option", near) from None
        words = ctx.params.get("words") or ()
        if len(words) > self.own and not ctx.resilient_parsing:
            raise self._refused(ctx, words[self.own], "argument", "")
        ctx.meta[UNNAMED] = ctx.get_parameter_source("name") is click.core.ParameterSource.DEFAULT
        if self.own:
            ctx.params["chosen"] = words[0] if words else "train"
        ctx.params["words"] = tuple(theirs)
        if end < len(args):  # for completion: the name, or its absence, is settled
            ctx.meta[complete.DASHED] = True
            ctx.set_parameter_source("name", click.core.ParameterSource.COMMANDLINE)
        return left

    def _refused(self, ctx: click.Context, word: str, kind: str, near: str) -> UsageError:
        return UsageError(
            f"{word} is not an {kind} of {ctx.command_path}",
            hint=f"{near}{self.after} after --: {ctx.command_path} NAME -- {word}",
        )


class _Run(Dashed):
    after = "arguments for the trainer go"
    own = 1


class _Replay(Dashed):
    after = "arguments for the trainer go"


class _Shell(Dashed):
    after = "a command to run there goes"


@click.command(cls=_Run)
@click.argument("name", default="auto", type=PROFILE, shell_complete=complete.profiles)
@click.argument("words", nargs=-1, metavar="[COMMAND] [-- ARGUMENTS]...", shell_complete=complete.commands)
@click.option(
    "--supervise", is_flag=True, help="Restart it when it fails; keep a log, and samples of its use of the machine."
)
@click.option("--status", is_flag=True, help="Print the state of the supervised run.")
@click.option("--logs", is_flag=True, help="Print its log.")
@click.option("-f", "--follow", is_flag=True, help="With --logs: print the last lines, then each new one.")
@click.option("--stop", is_flag=True, help="Stop it, and wait for its end.")
@click.option(
    "--on",
    "fleet",
    metavar="FLEET",
    is_eager=True,  # auto is then for its hosts
    help="Run it on the hosts of a fleet, for as long as this command runs.",
)
@click.option(
    "--slurm", is_flag=True, help="Submit it as a job of Slurm; with --status, --logs or --stop: for the last such job."
)
@json_option
@yes_option
def run(
    name: str,
    words: tuple[str, ...],
    fleet: str | None,
    supervise: bool,
    status: bool,
    logs: bool,
    follow: bool,
    stop: bool,
    slurm: bool,
    as_json: bool,
    yes: bool,
    chosen: str = "train",
) -> None:
    """Run the trainer of a profile, building it first if needed.

    NAME defaults to auto; with --on to the fleet's profile, and auto is then chosen for each host. COMMAND is one of
    [commands] of the profile; without it, or as train, it is the trainer.
    ARGUMENTS after -- go to what is run, whose exit status is passed on. [supervise] of the profile
    says what happens after a failure of the trainer, and [launch] how several hosts train together.
    """
    if sum((supervise, status, logs, stop)) > 1:
        raise UsageError("--supervise, --status, --logs and --stop do not go together", hint="use one of them")
    if (follow and not logs) or (as_json and not status):
        raise UsageError("-f goes with --logs, and --json with --status")
    kept = next((f"--{one}" for one, asked in (("on", fleet), ("slurm", slurm), ("supervise", supervise)) if asked), "")
    if slurm and (supervise or fleet):
        raise UsageError(
            "--slurm goes without --supervise and --on", hint="Slurm chooses hosts, and starts a job again"
        )
    look = status or logs or stop
    if fleet and click.get_current_context().meta[UNNAMED]:
        name = catalogue().config.fleet(fleet).profile
    if look and (words or chosen != "train"):
        word = words[0] if words else chosen
        raise UsageError(f"{word} is for a trainer, and no trainer is started here", hint="remove it")
    if kept and chosen != "train":
        raise UsageError(f"{kept} is for the trainer only, and {chosen} is not it", hint=f"leave {kept} out")
    if look:
        _look_after(_looker(name, fleet, slurm=slurm), status=status, logs=logs, follow=follow, as_json=as_json)
    else:
        _start(name, words, chosen, fleet=fleet, slurm=slurm, supervise=supervise, yes=yes)


def _start(
    name: str, words: tuple[str, ...], chosen: str, *, fleet: str | None, slurm: bool, supervise: bool, yes: bool
) -> None:
    report, quiet = reporter(), command().quiet
    if fleet is not None:
        from builder.fleet import launch

        named = catalogue().config.fleet(fleet)
        made = launch.Run(named, name, catalogue(), report, words, supervised=supervise, quiet=quiet)
        sys.exit(agreed(lambda: launch.start(made), yes=yes))
    elif slurm:
        from builder.run.slurm import submit

        click.echo(agreed(lambda: submit(name, words, catalogue(), report), yes=yes))
    elif supervise:
        from builder.run.supervise.start import supervise as start_supervised

        agreed(lambda: start_supervised(name, words, catalogue(), report, quiet=quiet), yes=yes)
    else:
        from builder.run import start

        agreed(lambda: start.run(name, words, catalogue(), report, command=chosen), yes=yes)


class _Looker(NamedTuple):
    """How a run is looked after that goes on elsewhere: its log, its state, that in words, and its end."""

    log: Callable[..., Iterator[bytes]]
    status: Callable[[], dict[str, Any]]
    describe: Callable[[dict[str, Any]], Iterator[str]]
    stop: Callable[[Callable[[str], None]], None]


def _looker(name: str, fleet: str | None, *, slurm: bool) -> _Looker:
    """For a run on a fleet, for a job of Slurm, or for a supervised run here."""
    if fleet is not None:
        from builder.fleet import services, watch

        named = catalogue().config.fleet(fleet)
        here = (named, name)
        if services.is_service(named, name):
            return _Looker(
                partial(services.log, *here),
                partial(services.status, *here, catalogue()),
                services.describe,
                partial(services.stop, *here),
            )
        return _Looker(
            partial(watch.log, *here), partial(watch.status, *here), watch.describe, partial(watch.stop, *here)
        )
    if slurm:
        from builder.run import slurm as jobs

        return _Looker(partial(jobs.log, name), partial(jobs.status, name), jobs.describe, partial(jobs.stop, name))
    from builder.run.supervise import runs

    return _Looker(partial(runs.log, name), partial(runs.status, name), runs.describe, partial(runs.stop, name))


def _look_after(looker: _Looker, *, status: bool, logs: bool, follow: bool, as_json: bool) -> None:
    if logs:
        for piece in looker.log(follow=follow):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    elif status:
        state = looker.status()
        if as_json:
            echo_json(state)
            return
        for line in looker.describe(state):
            click.echo(line)
    else:
        looker.stop(reporter().step)


@click.command(cls=_Shell)
@click.argument("name", default="auto", type=PROFILE, shell_complete=complete.profiles)
@click.argument("words", nargs=-1, metavar="[-- COMMAND]...", shell_complete=complete.files)
@click.option("--scratch", is_flag=True, help="Use a new writable environment on top of it, for experiments.")
@yes_option
def shell(name: str, words: tuple[str, ...], scratch: bool, yes: bool) -> None:
    """Open a shell, or run a command, in an environment.

    NAME defaults to auto. The environment is built first if needed.
    """
    from builder.run import start

    enter = start.scratch if scratch else start.shell
    agreed(lambda: enter(name, catalogue(), reporter(), words), yes=yes)


@click.command()
@click.argument("name", default="auto", type=PROFILE, shell_complete=complete.profiles)
@yes_option
def verify(name: str, yes: bool) -> None:
    """Verify a built environment.

    Checks versions, every file, the machine, its accelerator and the proofs of the patches. NAME defaults to auto.
    """
    from builder.cli.common import show
    from builder.cli.tables import flowing
    from builder.run import start

    shown = (lambda line: show(flowing(line, 5))) if sys.stdout.isatty() else None
    agreed(lambda: start.verify(name, catalogue(), shown), yes=yes)


@click.command(cls=_Replay)
@click.argument("name", metavar="NAME|RUN", type=PROFILE, shell_complete=complete.profiles)
@click.argument("words", nargs=-1, metavar="[-- ARGUMENTS]...", shell_complete=complete.files)
@click.option("--into", type=click.Path(path_type=Path), metavar="DIR", help="Keep both runs in this new folder.")
@click.option("--here", is_flag=True, help="Run both in the working directory, on what is there.")
@json_option
@yes_option
def replay(name: str, words: tuple[str, ...], into: Path | None, here: bool, as_json: bool, yes: bool) -> None:
    """Run a trainer twice and compare, step by step.

    NAME is a profile, whose environment is built first if needed; RUN is a run as drydock runs list has it, repeated
    with its code. Each of the two runs has a new folder at the same path, unless its project or the files that its
    profile names are in the working directory. Losses are compared as they are printed, and weights that are saved by
    their sha256. Exit status: 0 the same, 1 different, that of the trainer where it fails.
    """
    from builder.run.records.folder import looks_like_one
    from builder.run.replay import twice
    from builder.run.replay.words import described

    is_run = looks_like_one(name) and name not in catalogue().names()
    if is_run and words:
        raise UsageError("a run is replayed with its own arguments", hint="leave out those after --")
    if is_run and here:
        raise UsageError("a run is replayed with its own code, in new folders", hint="leave out --here")

    def make(place: Path) -> twice.Subject:
        if is_run:
            return twice.of_run(name, place, catalogue(), reporter())
        return twice.of_profile(name, words, catalogue(), reporter(), here=here)

    found = agreed(lambda: twice.replay(make, into, reporter()), yes=yes)
    if as_json:
        echo_json(found.as_json())
    else:
        click.echo("\n".join(described(found)))
    sys.exit(0 if found.same else 1)
