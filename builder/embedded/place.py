"""What a folder must be able to do for environments to be in it, found out by doing it: no file system says so itself.

And what a failure of a file system means, by its number.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Iterator, NamedTuple, Optional

from builder.embedded import claim, folders

FEW = 2_000
"""Files that no environment does without."""

_ANOTHER = "name a folder on another disk: DRYDOCK_HOME"
NO_SPACE = "free some space, or name another disk: DRYDOCK_HOME, UV_CACHE_DIR"


class Lack(NamedTuple):
    """What a folder cannot do, and what to do about it."""

    what: str
    hint: str


def disk(folder: Path) -> str:
    """A name of the disk that a folder is on, since this start of the machine; "" where the system names none."""
    return f"{claim.boot()} {os.stat(folder).st_dev}" if claim.boot() else ""


def lacks(folder: Path, prefix: str, *, faultless: bool = False) -> Iterator[Lack]:
    """What `folder`, which can be written, cannot do. Raises OSError where not even a folder can be made in it.

    It is tried in a folder whose name begins with `prefix`, and which is swept with those of that name; not where the
    disk is known to be `faultless`, for which only the room is looked at.
    """
    room = os.statvfs(folder)
    if room.f_files > 0 and room.f_favail < FEW:
        more = "free some files (drydock store gc, uv cache prune), or " + _ANOTHER
        yield Lack(f"{room.f_favail} files more may be made on this disk: its inodes are used up", more)
        if not room.f_favail:
            return
    if faultless:
        return
    path, descriptor = claim.begin(folder, prefix)
    try:
        yield from _tried(path)
    finally:
        os.close(descriptor)
        folders.remove_path(path)


def _tried(path: Path) -> Iterator[Lack]:
    (path / "file").write_text("#!/bin/sh\n", encoding="ascii")
    try:
        os.symlink("file", path / "link")
    except OSError as error:
        yield Lack(f"it has no symbolic links ({error.strerror}), as exFAT and FAT have none", _ANOTHER)
    try:
        os.chmod(path / "file", 0o755)
        os.waitpid(os.posix_spawn(path / "file", ["file"], {}), 0)
    except OSError as error:
        why = f"programs cannot be started from it ({error.strerror}): it may be mounted with noexec"
        yield Lack(why, f"mount it without, or {_ANOTHER}")
    try:
        os.mkdir(path / "folder")
        os.rename(path / "folder", path / "renamed")
    except OSError as error:
        yield Lack(f"folders cannot be renamed in it ({error.strerror})", _ANOTHER)
    for name, what in (("n" * 200, "names of 200 characters"), ("\u00e9\u4e2d", "names that are not ASCII")):
        try:
            (path / name).touch()
        except (OSError, ValueError) as error:
            yield Lack(f"it has no {what} ({getattr(error, 'strerror', error)})", _ANOTHER)


def folds_case(path: Path) -> bool:
    """Whether a path that exists is found in capitals too: its file system does not tell the case of letters apart."""
    other = path.with_name(path.name.swapcase())
    try:
        return other.name != path.name and os.path.samestat(os.lstat(path), os.lstat(other))
    except OSError:
        return False


def remedy(error: OSError) -> str:
    """What to do about a failure of a file system; "" where that is not known."""
    if error.errno == errno.ENOSPC:
        path = error.filename if isinstance(error.filename, str) else None
        if path and _no_inodes(path):
            return "the disk has space, but its inodes are used up: free some files, or " + _ANOTHER
        return NO_SPACE
    if error.errno == errno.EDQUOT:
        return "your quota on this disk is used up: drydock store gc, or " + _ANOTHER
    if error.errno == errno.EROFS:
        return "the disk is mounted read-only; " + _ANOTHER
    if error.errno == errno.EMFILE:
        return "more files may be open at once: ulimit -n 4096"
    return ""


def _no_inodes(path: str) -> bool:
    there: Optional[str] = os.path.abspath(path)
    while there and not os.path.exists(there):
        there = os.path.dirname(there)
    try:
        room = os.statvfs(there or "/")
    except OSError:
        return False
    return room.f_files > 0 and room.f_favail == 0 and room.f_bavail > 0
