"""Garbage collection roots: who still needs a store path, or a source.

    gcroots/running/KEY-NAME.PID    a process that builds, trains or looks; a root as long as it lives
    gcroots/scripts/KEY-NAME        the scripts that were run from elsewhere, a path a line; each a root as long as the
                                    file is there and is of that key
    gcroots/sources/SHA256          the lock files that refer to the content of a source, a path a line; each a root as
                                    long as it says so
    gcroots/collecting              the process id of a collection that is choosing; who comes meanwhile waits

The generated scripts write and read these too (templates/run.sh.j2, hold).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from builder import process
from builder.errors import DrydockError, ToolError
from builder.files import write_atomically
from builder.store import generations
from builder.store.layout import Store


def hold(store_name: str) -> None:
    """Make a store path a root as long as this process lives (a program that it becomes, too).

    In a store that cannot be written to nothing is collected either, and nothing has to be held.
    """
    own = _own(store_name)
    try:
        own.parent.mkdir(parents=True, exist_ok=True)
        own.touch()
    except OSError:
        return
    for _ in range(50):  # a collection looks at the roots again before it takes anything
        if not _someone_collects():
            return
        time.sleep(0.1)


def mark(store_name: str) -> Path:
    """The path of the root of a process, without the `.PID` at its end."""
    return _folder() / "running" / store_name


def release(store_name: str) -> None:
    """Let go of what `hold` held."""
    with suppress(OSError):
        _own(store_name).unlink()


def _own(store_name: str) -> Path:
    return mark(store_name).with_name(f"{store_name}.{os.getpid()}")


@contextmanager
def collecting() -> Iterator[None]:
    """Choose what to collect while nobody can begin to use it: a new user's root is seen, or the user waits.

    Raises DrydockError where another collection is choosing.
    """
    mark = _folder() / "collecting"
    if _someone_collects():
        raise DrydockError("another collection is under way", hint="let it end, then try again")
    write_atomically(mark, f"{os.getpid()}\n")
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def roots() -> dict[str, str]:
    """Every store name that is needed, and a word on who needs it. Removes the traces of what is gone."""
    found = dict.fromkeys(generations.roots(), "generation")
    for store_name, script in scripts():
        found.setdefault(store_name, f"script {script}")
    for store_name, number in running():
        found[store_name] = f"process {number}"
    return found


def running() -> list[tuple[str, int]]:
    """The living processes that use a store path. Removes the traces of dead ones."""
    alive = []
    for path in _entries("running"):
        store_name, _, number = path.name.rpartition(".")
        if number.isdecimal() and _lives(int(number), path):
            alive.append((store_name, int(number)))
        else:
            path.unlink(missing_ok=True)
    return alive


def scripts() -> Iterator[tuple[str, Path]]:
    """The scripts that were run from elsewhere and are still there: store name and script. Forgets the others."""
    for path in _entries("scripts"):
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        living = [line for line in lines if is_of(Path(line), path.name.partition("-")[0])]
        if living:
            yield path.name, Path(living[0])
        else:
            path.unlink(missing_ok=True)


def is_of(script: Path, key: str) -> bool:
    """Whether a script is still there and still of that key: it may have been rendered again."""
    try:
        with script.open(encoding="utf-8", errors="replace") as file:
            return f"key='{key}'" in file.read(8192)
    except OSError:
        return False


def sources() -> set[str]:
    """The contents of sources that a lock file refers to. Forgets the lock files that do not any more."""
    needed = set()
    for path in _entries("sources"):
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        if any(_mentions(Path(line), path.name) for line in lines):
            needed.add(path.name)
        else:
            path.unlink(missing_ok=True)
    return needed


def _mentions(lock: Path, sha256: str) -> bool:
    try:
        return f'"{sha256}"' in lock.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _lives(number: int, mark: Path) -> bool:
    """Whether the process that made `mark` lives; one that began later only has the same number."""
    if not process.is_alive(number):
        return False
    with suppress(ToolError, ValueError, OSError):
        elapsed = _seconds(process.run(["ps", "-o", "etime=", "-p", str(number)]).stdout.strip())
        return time.time() - elapsed <= mark.stat().st_mtime + 5
    return True


def _seconds(elapsed: str) -> int:
    """The seconds in what POSIX `ps -o etime` prints: [[dd-]hh:]mm:ss.

    >>> _seconds("2-03:04:05")
    183845
    """
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", elapsed)
    if found is None:
        raise ValueError(elapsed)
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _someone_collects() -> bool:
    mark = _folder() / "collecting"
    try:
        text = mark.read_text()
        return text.strip().isdecimal() and _lives(int(text), mark)
    except OSError:
        return False


def _entries(kind: str) -> list[Path]:
    folder = _folder() / kind
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _folder() -> Path:
    return Store.here().roots
