"""The way in for scripts, which carry this folder: BASE -I -S -B FOLDER COMMAND ARGUMENTS.

build PARTS ENV UV FRAME WORK MIRROR SCRIPT NOTE ASKED
                                                see builder/embedded/stage.py
sweep STORE NAME                                delete what a dead build of ENV left
verify ENV                                      every promise about a finished environment, checked
python FOLDER NAME                              see builder/embedded/pythons.py
into MODE VENV PARTS HOME UV WORK MIRROR SCRIPT AGAIN ASK
                                                see builder/embedded/into.py
pip MIRROR SCRIPT OPTIONS                       pip of this Python, by hash: from caches, or this machine's indexes
trainer HOME MIRROR SCRIPT FOLDER FILE SHA256 PLACE COMMIT
                                                see builder/embedded/source.py; FOLDER, if not "", becomes a copy
data HOME MIRROR SCRIPT VIEW FILE FOLDER...     see builder/embedded/data.py; FILE says what, FOLDERs may have some
list                                            the files of this folder
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from builder.embedded import caller
from builder.embedded.errors import StageError


def _build(
    parts: str, env: str, uv: str, frame: str, work: str, mirror: str, script: str, note: str, asked: str
) -> None:
    from builder.embedded import folders
    from builder.embedded.stage import Tools, build

    caller.remember_folder()
    try:
        folders.build_in(Path(env).parent.parent)
        tools = Tools(uv, Path(frame), Path(work), Path(mirror), Path(note), asked)
        build(Path(parts), Path(env), tools, int(script))
    except StageError as error:
        raise StageError(f"{error}; nothing was left in the store", error.hint) from None
    except OSError as error:
        raise StageError(f"{error}; nothing was left in the store", _remedy(error)) from None


def _remedy(error: OSError) -> str:
    from builder.embedded import place

    return place.remedy(error)


def _sweep(store: str, name: str) -> None:
    from builder.embedded.stage import sweep

    sweep(Path(store), name)


def _verify(env: str) -> bool:
    from builder.embedded.verify import say, verify

    return say(verify(Path(env)))


def _into(mode: str, venv: str, parts: str, *tools: str) -> bool:
    from builder.embedded import lifeline
    from builder.embedded.into import Tools, into

    home, uv, work, mirror, script, again, ask = tools
    caller.remember_folder()
    lifeline.leave_on_signals()
    guard = lifeline.Guard(int(script))
    try:
        work, home, mirror, parts = map(os.path.abspath, (work, home, mirror, parts))
        found = Tools(uv, Path(work), Path(home), Path(mirror), again)
        return into(mode, Path(venv), Path(parts), found, ask=ask == "yes")
    finally:
        guard.end()


def _pip(mirror: str, script: str, *options: str) -> bool:
    from builder.embedded import caches, installer, lifeline, network, progress

    lifeline.leave_on_signals()
    guard = lifeline.Guard(int(script))
    command = [sys.executable, "-E", "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", *options]
    quickly = ["--retries", "1", "--timeout", "15"]
    caller.remember_folder()
    top = os.open("/", os.O_RDONLY)  # Python looks for pip where it is started, too
    try:
        for place in [*installer.places(Path(mirror), os.environ), None]:
            index = caches.index_of(place) if place else None
            index = f"file://{index}" if index and index.startswith("/") else index
            # What it unpacks is on the disk of its --target, whose room was looked at, and is moved without a copy.
            environ = {**network.pip_environment(os.environ, index), "TMPDIR": os.path.dirname(options[1])}
            asked = [*command, *(quickly if index else [])]
            if lifeline.run(asked, folder=top, env=environ, heard=progress.Listener("uv")) == 0:
                progress.end()
                return True
        return False
    finally:
        guard.end()


def _python(folder: str, name: str) -> None:
    from builder.embedded.pythons import seal

    seal(Path(folder), name)


def _of(module: str) -> Callable[..., Any]:
    """The command of a module that not every script has."""
    return lambda *arguments: import_module(f"builder.embedded.{module}").command(*arguments)


def _list() -> None:
    for path in sorted(Path(__file__).parent.glob("*.py")):
        print(path)


COMMANDS: dict[str, Callable[..., Any]] = {
    "build": _build,
    "sweep": _sweep,
    "verify": _verify,
    "python": _python,
    "into": _into,
    "pip": _pip,
    "trainer": _of("source"),
    "data": _of("data"),
    "list": _list,
}


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit status. A command that returns False has failed."""
    command = "".join(arguments[:1])
    try:
        if command not in COMMANDS:
            raise StageError(f"the commands are {', '.join(COMMANDS)}, not {command!r}")
        return 1 if COMMANDS[command](*arguments[1:]) is False else 0
    except (StageError, OSError) as error:
        print(f"drydock: error: {error}", file=sys.stderr)
        hint = error.hint if isinstance(error, StageError) else _remedy(error)
        if hint:
            print(f"drydock:   hint: {hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run() -> NoReturn:
    """Run the command of this process, and end it."""
    gc.set_threshold(100_000)  # little of what a build makes is garbage that only a search finds
    code = main(sys.argv[1:])
    gc.freeze()  # or Python looks through all that is left on its way out
    sys.exit(code)


if __name__ == "__main__":
    run()
