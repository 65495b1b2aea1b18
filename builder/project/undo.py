"""What a command changed in a project, so that it can be taken back: files as they were, and generations.

undo/SHA256/N.json      of the project in the folder whose path has that sha256, the newest has the highest number:
                        {"command": "add six", "files": {PATH: {"before": TEXT or null, "after": SHA256 or null}},
                         "generations": {PROFILE: {"before": NUMBER, "after": NUMBER}}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.embedded import state
from builder.embedded.hashes import sha256
from builder.errors import DrydockError, UsageError
from builder.files import display, read_regular, write_atomically
from builder.store import generations
from builder.store.layout import home

KEPT = 10
"""How many changes of a project are remembered."""

_CHANGE = {
    "command": str,
    "files": {str: {"before": (str, None), "after": (str, None)}},
    "generations": {str: {"before": int, "after": int}},
}


@dataclass(frozen=True)
class Change:
    """Something that was changed: by which `command`, the texts of `files` before, and the numbers of `generations`."""

    command: str
    files: Mapping[Path, str | None]
    generations: Mapping[str, tuple[int, int]]


def text_of(path: Path) -> str | None:
    """What is in a file; None where there is none. Raises OSError, UnicodeDecodeError."""
    try:
        return read_regular(path).decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None


def put(files: Mapping[Path, str | None]) -> None:
    """Write files, each whole or not at all; None deletes one."""
    for path, text in files.items():
        if text is None:
            path.unlink(missing_ok=True)
        elif text_of(path) != text:
            executable = path.exists() and bool(path.stat().st_mode & 0o100)
            write_atomically(path, text, executable=executable or text.startswith("#!"))


class Several:
    """Changes of files in several steps, of which some can be taken back where a later one fails."""

    def __init__(self) -> None:
        self._before: dict[str, dict[Path, str | None]] = {}

    def begin(self, step: str, paths: Iterable[Path]) -> None:
        """Keep what is in the files that a step may change. Raises OSError, UnicodeDecodeError."""
        self._before[step] = {path: text_of(path) for path in paths}

    def take_back(self, steps: Iterable[str]) -> list[str]:
        """Take back those of the steps that have begun, and return those that had changed anything."""
        begun = {step: self._before[step] for step in steps if step in self._before}
        changed = [step for step, files in begun.items() if any(text_of(path) != text for path, text in files.items())]
        for step in changed:
            put(begun[step])
        return changed


def remember(change: Change) -> bool:
    """Remember what was changed; False where the store cannot be written to."""
    data = {
        "command": change.command,
        "files": {
            str(path): {"before": before, "after": _sha256(text_of(path))} for path, before in change.files.items()
        },
        "generations": {name: {"before": one, "after": two} for name, (one, two) in change.generations.items()},
    }
    numbers = _numbers()
    try:
        write_atomically(_folder() / f"{max(numbers, default=0) + 1}.json", json.dumps(data))
    except OSError:
        return False
    for number in numbers[: 1 - KEPT]:
        with suppress(OSError):
            (_folder() / f"{number}.json").unlink()
    return True


def undo() -> Change:
    """Take back the last change of the project in the working directory, and forget it.

    Raises UsageError where there is none, DrydockError, before anything is done, where a file was changed since.
    """
    numbers = _numbers()
    if not numbers:
        raise UsageError("there is nothing to undo here", hint="git has what was committed")
    path = _folder() / f"{numbers[-1]}.json"
    data: Mapping[str, Any] | None = state.read_json(path, _CHANGE, state.LARGE)
    if data is None:
        path.unlink(missing_ok=True)
        raise DrydockError(f"{path} was damaged, and is deleted: that change cannot be undone")
    files = {Path(name): row["before"] for name, row in data["files"].items()}
    for one in files:
        if _sha256(text_of(one)) != data["files"][str(one)]["after"]:
            raise DrydockError(
                f"{display(one)} was changed after: drydock {data['command']}",
                hint="nothing was undone; git diff says what it was",
            )
    put(files)
    moved = {name: (row["before"], row["after"]) for name, row in data["generations"].items()}
    for name, (before, after) in moved.items():
        here = generations.current(name)
        if here is not None and here.number == after:
            with suppress(UsageError):  # it was deleted meanwhile
                generations.switch(name, before)
    path.unlink(missing_ok=True)
    return Change(data["command"], files, moved)


def _sha256(text: str | None) -> str | None:
    return None if text is None else sha256(text.encode())


def _folder() -> Path:
    return home() / "undo" / sha256(os.fsencode(Path.cwd()))


def _numbers() -> list[int]:
    folder = _folder()
    names = [path.stem for path in folder.glob("*.json")] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal() and len(name) < 10)
