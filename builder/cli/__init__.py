"""The command line: parse, call one workflow, print, exit.

stdout is data, stderr is talk. Each command's file is imported when the command is asked for, and what a command needs
when it runs, so that all of them start quickly.
"""

from __future__ import annotations

import gc

gc.set_threshold(100_000)  # what imports leave is no garbage: looking for some takes 5 ms of the 60 of a short command

import atexit
import errno
import importlib
import os
import signal
import sys
import threading
from contextlib import suppress
from keyword import iskeyword
from pathlib import Path
from typing import NoReturn

import click

from builder import log
from builder.cli.common import Command, columns, show
from builder.cli.examples import add_examples
from builder.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, DrydockError, UsageError
from builder.project import user_config

# Heading of the help -> command -> the file here that has it.
_SECTIONS = {
    "Environments": {
        "build": "run",
        "run": "run",
        "shell": "run",
        "verify": "run",
    },
    "Profiles": {
        "profile": "profile",
        "lock": "lock",
        "render": "lock",
        "diff": "lock",
        "why": "lock",
        "tree": "lock",
        "outdated": "lock",
        "audit": "audit",
        "bisect": "bisect",
        "add": "packages",
        "remove": "packages",
        "update": "packages",
        "undo": "packages",
        "patch": "patch",
        "sources": "sources",
        "init": "author",
        "import": "author",
        "export": "share",
    },
    "Editors and shells": {
        "env": "editors",
        "link": "editors",
        "kernel": "editors",
        "completions": "editors",
    },
    "Share": {
        "push": "share",
        "pull": "share",
        "bundle": "share",
        "image": "share",
    },
    "Many hosts": {
        "deploy": "fleet",
    },
    "This machine": {
        "status": "status",
        "bench": "bench",
        "doctor": "doctor",
        "runs": "runs",
        "rerun": "runs",
        "replay": "run",
        "generation": "generation",
        "store": "store",
        "cache": "cache",
        "service": "service",
    },
    "This program": {
        "config": "config",
        "help": "help",
        "self": "self",
        "report": "self",
    },
}
_FILES = {name: file for section in _SECTIONS.values() for name, file in section.items()}


# What people of other tools type.
_MEANT = {
    "install": "build",
    "sync": "build",
    "train": "run",
    "exec": "shell",
    "ls": "profile list",
    "list": "profile list",
    "upgrade": "update",
    "rm": "remove",
    "clean": "cache clean",
    "prune": "store gc",
    "settings": "config",
    "rollback": "generation rollback",
    "freeze": "lock",
    "compile": "lock",
    "check": "doctor",
    "info": "doctor",
    "version": "self version",
}


_WIDEST = 100  # columns of a help
_WHOLE = 200  # columns: a short help goes on in the next line, and is not cut


class _Commands(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in _FILES or name.startswith("-"):
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches

        near = [_MEANT[name]] if name in _MEANT else get_close_matches(name, _FILES, 1)
        meant = f'did you mean "drydock {near[0]}"? ' if near else ""
        raise UsageError(f'no command "{name}"', hint=f"{meant}drydock --help lists them")

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_FILES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _FILES:
            return None
        module = importlib.import_module(f"{__name__}.{_FILES[cmd_name]}")
        found: click.Command = getattr(module, f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name)
        add_examples(found, cmd_name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, names in _SECTIONS.items():
            with formatter.section(heading):
                commands = {name: self.get_command(ctx, name) for name in names}
                formatter.write_dl([(name, one.get_short_help_str(_WHOLE)) for name, one in commands.items() if one])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST})
@click.version_option(package_name="drydock-env", prog_name="drydock")
@click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors.")
@click.option("-v", "--verbose", count=True, help="Print the programs that are run; -vv also what they say.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), help="Colour the output (default: auto).")
@click.option("--offline", is_flag=True, help="Use caches and folders of wheels only, no network.")
@click.pass_context
def cli(context: click.Context, quiet: bool, verbose: int, color: str | None, offline: bool) -> None:
    """Reproducible Python training environments for named hardware.

    A profile (TOML) and its lock are rendered into one shell script, which builds the environment in a
    content-addressed store and runs the trainer in it.

    \b
    drydock run auto      build what fits this machine, train
    drydock build m4      build the environment of m4
    drydock profile list  list the profiles
    """
    context.obj = Command(quiet=quiet)
    if color in ("always", "never"):
        os.environ.pop("NO_COLOR", None)
        os.environ["FORCE_COLOR" if color == "always" else "NO_COLOR"] = "1"
    # What repairs a file that cannot be read must not read it first.
    if context.invoked_subcommand not in ("config", "help", "self", "report"):
        user_config.apply(os.environ)
    if verbose:
        from builder.report import sanitized

        log.listen(lambda text: show(sanitized(text), err=True), verbose)
    if offline:
        os.environ["UV_OFFLINE"] = "1"


def run_program() -> NoReturn:
    """Run `main` and end the process at once: Python would first take apart all that was loaded, for 2 ms of 45.

    Kept is what a process does at its end: it waits for threads, calls what `atexit` knows, and writes its buffers.
    """
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, int) and threading.active_count() == 1:
            with suppress(OSError, ValueError):  # Python tries again, reports it, and exits with 120
                atexit._run_exitfuncs()
                for stream in (sys.stdout, sys.stderr):
                    if stream is not None:
                        stream.flush()
                os._exit(end.code)
        gc.freeze()  # or Python looks through all that is left on its way out, twice: 8 ms
        raise


def main() -> NoReturn:
    """Run the program `drydock`: an error of the user's becomes a message and an exit status, never a traceback."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    _open_closed_streams()
    try:
        width = max(min(columns(), _WIDEST) - 2, 50)  # as click has it, which imports shutil for that
        code = cli.main(prog_name="drydock", standalone_mode=False, terminal_width=width)
        sys.exit(code if isinstance(code, int) else 0)
    except DrydockError as error:
        _explain(error)
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _explain(_ours(error))
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        # A reader of our stdout that has gone (`drydock profile list | head`) is click's business; this is the rest.
        if error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _explain(_of_system(error))
        sys.exit(EXIT_FAILED)
    except Exception as error:  # a bug: whoever meets it needs no traceback to go on
        import traceback

        _explain(
            DrydockError(
                f"{type(error).__name__}: {error}",
                hint="this is a bug in Drydock: drydock report collects what it takes to find it",
            ),
            traceback.format_exc(),
        )
        sys.exit(EXIT_FAILED)


def _open_closed_streams() -> None:
    """Open /dev/null for each standard stream that our caller closed: the next file would get its descriptor."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 it stays open
            os.set_inheritable(number, True)


def _of_system(error: OSError) -> DrydockError:
    """What the system refused, with what helps where that is known."""
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return DrydockError("the working folder does not exist any more", hint="go to another one: cd")
    if not isinstance(error.filename, str):
        return DrydockError(f"stdout: {error.strerror}")
    path = here / error.filename
    hints = {
        errno.EISDIR: "a file is wanted there: move the folder away",
        errno.EACCES: "it is not yours: look at its owner and mode with ls -l",
        errno.EROFS: "that disk can only be read: work in another folder",
        errno.ENOSPC: "the disk is full: free some space; drydock store gc deletes what nothing needs",
    }
    file = next((one for one in path.parents if os.path.isfile(one)), None)  # noqa: PTH113 # a closed folder is no error
    if error.errno in (errno.ENOTDIR, errno.EEXIST) and file is not None:
        hints[error.errno] = f"{file} is a file where a folder is wanted: move it away"
    return DrydockError(f"{error.filename}: {error.strerror}", hint=hints.get(error.errno or 0))


def _explain(error: DrydockError, trace: str = "") -> None:
    """Say what went wrong, and where the log is, where one was worth keeping."""
    from builder.report import explain, sanitized

    words = explain(error)
    # What fails before anything was run says all that there is in its message.
    if trace or (log.has_run() and error.exit_code != EXIT_USAGE):
        import shlex

        from builder import secrets
        from builder.resources import version

        command = ["drydock", *secrets.redacted_arguments(sys.argv[1:], os.environ, ())]
        head = [f"Drydock {version()}, Python {sys.version.split()[0]}, {' '.join(os.uname()[::2])}"]
        head += [f"command: {shlex.join(command)}", f"folder: {os.environ.get('PWD', '')}"]
        path = log.write(head, [*words.splitlines(), *trace.splitlines()], sanitized)
        words += f"\n  log: {path}" if path is not None else ""
    show(words, err=True)


def _ours(error: click.ClickException) -> DrydockError:
    """An error of the command line, in the words of all others."""
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"{context.command_path} --help" if context is not None else None
    return UsageError(message[:1].lower() + message[1:], hint=hint)


def _stop(number: int, _frame: object) -> NoReturn:
    """End the program as an exception does, so that half-done work is removed on the way out."""
    sys.exit(128 + number)
