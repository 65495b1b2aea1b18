"""The files of a folder that a requirement names by its path, and whether any of them was changed.

Light to import: asked each time that an evaluation is remembered.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from builder import process
from builder.embedded import git
from builder.errors import LockError, ToolError

ALL = "*"
"""In the place of what is not its: each file counts, also those that git ignores, and links to files."""

_FILES = 100_000
_LEFT_OUT = {".git", "__pycache__", ".venv", "venv", "build", "dist", "node_modules", ".tox", ".nox", ".drydock"}
_RECENT = 2.0  # seconds; a file system's clock may be that coarse (FAT), as git's "racily clean" files


def state(path: Path, not_its: Collection[str]) -> str:
    """The digest of names, sizes, inodes and times of a file, or of the files of a folder: another one where any of
    them was changed. "" where it cannot be known, as one was changed a moment ago. Raises LockError, OSError.
    """
    if not path.exists():
        return "missing"
    names = [""] if path.is_file() else sorted(files_of(path, not_its))
    rows, newest = [], 0.0
    for name in names:
        found = (path / name).stat()
        rows.append((name, found.st_size, found.st_ino, found.st_dev, found.st_mtime_ns, found.st_ctime_ns))
        newest = max(newest, found.st_mtime, found.st_ctime)
    return "" if newest > time.time() - _RECENT else hashlib.sha256(repr(rows).encode()).hexdigest()


def are_same(recorded: Sequence[Sequence[str]]) -> bool:
    """Whether all files and folders are as they were: rows of a path, its state then, and what is not its."""
    try:
        return all(was != "" and state(Path(path), not_its) == was for path, was, *not_its in recorded)
    except (LockError, OSError, ValueError):
        return False


def files_of(folder: Path, not_its: Collection[str]) -> list[str]:
    """The files of a folder that count: those that git knows or would add, else all but what tools leave there.

    What is called as in `not_its`, right below it, does not count; [ALL] is for data. Raises LockError.
    """
    if list(not_its) == [ALL]:
        return [name for name in _walked(folder, ()) if (folder / name).is_file()]
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    environment = {key: value for key, value in os.environ.items() if key not in git.PLACES}
    try:
        done = process.run(command, env=environment)
        listed = done.stdout.split("\0") if done.code == 0 else None
    except ToolError:
        listed = None
    names = listed if listed is not None else _walked(folder)
    found = []
    for name in names:
        parts = name.split("/")
        ours = parts[0] in not_its or _LEFT_OUT.intersection(parts[:-1]) or ".egg-info/" in name
        path = folder / name
        if name and not ours and path.is_file() and not path.is_symlink():
            found.append(name)
        if len(found) > _FILES:
            raise LockError(f"{folder} has more than {_FILES} files", hint="list what is not part of it in .gitignore")
    return found


def _walked(folder: Path, left_out: Collection[str] = _LEFT_OUT) -> Iterator[str]:
    for top, folders, files in os.walk(folder):
        folders[:] = [one for one in folders if one not in left_out]
        yield from (Path(top, one).relative_to(folder).as_posix() for one in files)
