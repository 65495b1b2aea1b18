"""Uses of an environment: run the trainer, open a shell, verify. All through one script."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from builder import process, secrets
from builder.build.build import build
from builder.build.script import Script, script_of, script_of_generation
from builder.embedded import state
from builder.errors import BuildError, DrydockError, UsageError
from builder.names import stem
from builder.project.evaluate import evaluate
from builder.store import generations, roots
from builder.store.layout import Store, home

if TYPE_CHECKING:
    from builder.project.catalogue import Catalogue
    from builder.report import Reporter


def run(
    name: str, arguments: Sequence[str], catalogue: Catalogue, report: Reporter, *, command: str = "train"
) -> NoReturn:
    """Become the trainer of `name`, or another of its commands, built first if needed.

    Its secrets are in its environment. Raises UsageError where it has no such command.
    """
    if command != "train":
        _check_command(name, command, catalogue)
    environment, names = secrets.environment(arguments)
    words = () if command == "train" else (command,)
    script = current_script(name, catalogue, report, to_run=not words)
    if words and not _knows(script, command):
        raise UsageError(
            f"{name} has {command} now, and had no such command when its current generation was built",
            hint=f"drydock build {name}",
        )
    record_run(name, command, arguments, script, catalogue, environment, names, report)
    process.replace(script.command(*words, "--", *arguments), environment)


def record_run(
    name: str,
    command: str,
    arguments: Sequence[str],
    script: Script,
    catalogue: Catalogue,
    environment: Mapping[str, str],
    names: Sequence[str],
    report: Reporter,
    *,
    supervised: bool = False,
) -> Path | None:
    """Record a run of the current generation of `name`, which this process becomes; the path of the record, if any."""
    from builder.run.records.begin import begin

    here = generations.current(name)
    if here is None:
        return None
    try:
        evaluation = evaluate(name, catalogue)
        lock = evaluation.lock if evaluation.store_name == here.store_name else None
    except DrydockError:  # an older generation runs as it was built
        lock = None
    return begin(
        name,
        command,
        arguments,
        store_name=here.store_name,
        generation=here.number,
        script=script.command("--print-env"),
        script_path=script.path,
        lock=lock,
        project=_code_of(name, script, catalogue),
        environment=environment,
        names=names,
        supervised=supervised,
        warn=report.warn,
    )


def _code_of(name: str, script: Script, catalogue: Catalogue) -> Path | None:
    """Where the code of a run is, if not in the working directory: in the project that the profile is of."""
    try:
        return script.project if catalogue.entry(name).is_of_project else None
    except DrydockError:
        return script.project


def _check_command(name: str, command: str, catalogue: Catalogue) -> None:
    """Before anything is built for it."""
    known = catalogue.entry(name).profile.commands
    if command in known:
        return
    after = f"arguments for the trainer go after --: drydock run {name} -- {command}"
    if not known:
        raise UsageError(f"{command} is not an argument of drydock run, as {name} has no commands", hint=after)
    near = difflib.get_close_matches(command, known, 1)
    hint = f"did you mean {near[0]}? {after}" if near else f"it has {', '.join(known)}; {after}"
    raise UsageError(f"{name} has no command {command}", hint=hint)


def _knows(script: Script, command: str) -> bool:
    """Whether a script, which may be of an older generation, has a command; its help has a line for each."""
    return f"\n  {command}: " in (state.read_text(script.path, state.LARGE, follow=True) or "")


def shell(name: str, catalogue: Catalogue, report: Reporter, command: Sequence[str] = ()) -> NoReturn:
    """Become a shell, or `command`, in the environment of `name`, built first if needed."""
    process.replace(current_script(name, catalogue, report).command("--shell", "--", *command))


def print_environment(name: str, catalogue: Catalogue, report: Reporter) -> NoReturn:
    """Print the environment of `name`, built first if needed, as shell commands, and end."""
    process.replace(current_script(name, catalogue, report).command("--print-env"))


def scratch(name: str, catalogue: Catalogue, report: Reporter, command: Sequence[str] = ()) -> NoReturn:
    """Become a shell, or `command`, in a new writable environment on top of that of `name`: for experiments.

    Installations go there, and the store path below it stays as it is.
    """
    from builder import uv
    from builder.embedded.installed import site_packages

    script = current_script(name, catalogue, report)
    below = Path(process.run(script.command("--where")).stdout.rstrip("\n"))
    roots.hold(below.name)
    folder = home() / "scratch" / f"{below.name}-{os.getpid()}"
    uv.create_venv(folder, str(below / "bin" / "python"))
    (site_packages(folder) / "drydock-below.pth").write_text(f"{site_packages(below)}\n", encoding="utf-8")
    report.step(f"a writable environment on top of {name}: {folder}")
    report.step("install with: uv pip install PACKAGE; remove the folder when you are done")
    process.replace(script.around(_SCRATCH, str(folder), *command))


# The settings of the profile, then the scratch environment before the one below it.
_SCRATCH = """\
eval "$("$1" --print-env)"
unset DRYDOCK_PROJECT
export VIRTUAL_ENV="$2" PATH="$2/bin:$PATH"
shift 2
[ $# -eq 0 ] || exec "$@"
exec "${SHELL:-/bin/sh}"
"""


def verify(name: str, catalogue: Catalogue, show: Callable[[str], None] | None = None) -> NoReturn:
    """Become the verification of `name`: a line per finding, exit status 1 where one is bad. `show` gets the lines."""
    here = generations.current(name)
    script = script_of_generation(here, name, catalogue) if here is not None else script_of(name, catalogue)
    if here is None and not Store.here().is_built(evaluate(name, catalogue).store_name):
        raise BuildError(f"{name} is not built", exit_code=1, hint=f"drydock build {name}")
    command = script.command("--verify")
    if show is None:
        process.replace(command)
    sys.exit(process.stream(["/bin/sh", "-c", 'exec "$@" >&2', "sh", *command], show))


def current_script(name: str, catalogue: Catalogue, report: Reporter, *, to_run: bool = False) -> Script:
    """Return the script of the current generation of `name`, which is built first if needed.

    `to_run` the trainer: where this machine or folder lacks what that needs, nothing is fetched. Raises BuildError.
    Settings that changed since are taken over at once; another environment only by a build, so that a rollback holds.
    """
    here = generations.current(name)
    if here is None:
        build(name, catalogue, report, to_run=to_run)
        here = generations.current(name)
    if here is None:
        raise BuildError(f"{name} has no generation, and its build made none", exit_code=1)
    try:
        evaluation = evaluate(name, catalogue)
    except DrydockError as error:
        why = f"{error.message}; {error.hint}" if error.hint else error.message
        report.warn(f"{name} cannot be evaluated now ({why}); this is generation {here.number}")
        return script_of_generation(here, name, catalogue)
    _compare_committed(name, evaluation.script, report)
    if evaluation.store_name == here.store_name:
        if Store.here().data_of(evaluation.script) is not None:
            with suppress(OSError, DrydockError):  # so that a collection keeps what it names
                generations.add(name, here.store_name, evaluation.script.read_text(encoding="utf-8"))
        return script_of(name, catalogue)
    report.warn(f"{name} is not what generation {here.number} was built from; to build it: drydock build {name}")
    return script_of_generation(here, name, catalogue)


def _compare_committed(name: str, script: Path, report: Reporter) -> None:
    """Say where the committed script does something else: who runs that gets another trainer, or other settings."""
    committed = Path("generated") / stem(name) / script.name
    text, ours = (state.read_text(path, state.LARGE, follow=True) for path in (committed, script))
    if text is None or ours is None or text == ours:
        return
    from builder.script.machinery import canonical

    if canonical(text) != canonical(ours):
        report.warn(f"{committed} is not what {name} renders to now; to write it again: drydock render {name}")
