"""Who builds what: one build per key, however many start, and what is left of those that died.

The kernel says who lives: a lock that it holds for a process ends with the process (flock), also across users,
containers and process ids that are used again. Where a file system has no such locks, or the process is of another
machine, a note beside the lock says of which machine and boot it is, and when it last gave a sign of life.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from builder.embedded.folders import make_folder, remove_path
from builder.embedded.state import parse_json, read_json
from builder.embedded.words import printable

LOCK = ".lock-"
"""What the name of a key's lock begins with, in the store."""

CLAIM = ".claim-"
"""What the name of a key's claim begins with: who builds it, for machines that do not see the lock."""

NOTE = ".builder.json"
"""In a folder that is being made: who makes it. Its time of change is the last sign of life."""

LEASE = 600.0
"""Seconds without a sign of life after which a build of another machine is dead."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


def boot() -> str:
    """A name of this start of this machine, the same in all its containers; empty where the system has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def lock(descriptor: int, *, wait: bool = False, shared: bool = False) -> bool | None:
    """Take the kernel's lock on an open file or folder, for as long as it is open somewhere; `shared` with who asks so.

    True where it was taken, False where somebody else has it, None where this file system has no locks.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def begin(parent: Path, prefix: str) -> tuple[Path, int]:
    """Make a folder in `parent` that is ours while it is open: its path, and its descriptor.

    It is locked, has a note, and gives signs of life where a guard watches over this process.
    """
    from builder.embedded import lifeline

    path, folder = make_folder(parent, prefix)
    try:
        lock(folder)
        descriptor = os.open(NOTE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(_who())
    except BaseException:
        os.close(folder)
        remove_path(path)
        raise
    lifeline.touch(path / NOTE)
    return path, folder


def _who() -> str:
    """Who we are, for those who wait for us."""
    import pwd

    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return json.dumps({"host": os.uname().nodename, "boot": boot(), "pid": os.getpid(), "user": user})


def read_note(folder: int) -> dict[str, Any]:
    """What `begin` wrote; empty where there is nothing to read."""
    return read_json(NOTE, dict, folder=folder) or {}


def _read_claim(path: Path) -> dict[str, Any]:
    """Who says that they build a key: the target of a link, which is never half written; a file of older versions."""
    try:
        return parse_json(os.readlink(path), dict) or {}
    except OSError:
        return read_json(path, dict) or {}


def _is_of_this_start(note: Mapping[str, Any] | None) -> bool:
    """Whether a note names this machine, and its last start."""
    return note is not None and (note.get("host"), note.get("boot")) == (os.uname().nodename, boot())


# How stages were named before they had a note: .stage-KEY-HOST-PID.
_NAMED_BY_PROCESS = r"\.stage-[0-9a-z]{32}-(?P<host>.+)-(?P<pid>\d+)"


def is_dead(path: Path, ours: int = 0) -> bool:
    """Whether nobody makes this folder any more. What cannot be looked at is alive.

    `ours` is the process id of our script: another that had it is dead.
    """
    from builder.embedded import lifeline

    old = re.fullmatch(_NAMED_BY_PROCESS, path.name)
    if old is not None and old["host"] == os.uname().nodename:
        return int(old["pid"]) == ours or not lifeline.is_alive(int(old["pid"]))
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        taken = lock(folder)
        if taken is False:
            return False
        note = read_note(folder)
        if taken and not note and (path / ".drydock" / "manifest.json").exists():
            return True  # all but its name was there when its builder died
        if taken and _is_of_this_start(note):
            return True
        try:
            last = os.stat(NOTE, dir_fd=folder, follow_symlinks=False).st_mtime
        except OSError:
            last = os.fstat(folder).st_mtime
        return abs(time.time() - last) > LEASE
    except OSError:
        return False
    finally:
        os.close(folder)


def dead(folder: Path, prefix: str, ours: int = 0) -> Iterator[Path]:
    """The folders in `folder` whose name begins with `prefix` and that nobody makes any more."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        if name.startswith(prefix) and is_dead(folder / name, ours):
            yield folder / name


def sweep(folder: Path, prefix: str, ours: int = 0) -> None:
    """Delete what dead builds left in `folder`; what cannot be deleted stays, and is no error."""
    for path in dead(folder, prefix, ours):
        try:
            remove_path(path)
        except OSError:
            continue


def forget(store: Path, name: str) -> None:
    """Delete the lock of a key where nobody holds it, and the claim of a builder of this machine."""
    path = store / f"{LOCK}{name}"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if lock(descriptor) and os.fstat(descriptor).st_ino == os.lstat(path).st_ino:
            note = store / f"{CLAIM}{name}"
            if _is_of_this_start(_read_claim(note)):
                os.unlink(note)
            os.unlink(path)
    except OSError:
        pass
    finally:
        os.close(descriptor)


class Claim:
    """The right to build one key in one store: nobody else has it until `release`.

    Waits where somebody has it, and says so. A machine that does not see the lock of another one (NFS, local_lock) sees
    a link that only one can make, and its signs of life: whoever gives none for three times their pause is dead.
    """

    def __init__(self, store: Path, name: str) -> None:
        self._path = store / f"{LOCK}{name}"
        self._note = store / f"{CLAIM}{name}"
        self._descriptor = -1
        self._inode = 0
        self._said = False
        while True:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            taken = lock(self._descriptor)
            if taken is False:
                self._say("")
                taken = lock(self._descriptor, wait=True)
            # Whoever had it took the file away: then this is the lock of nobody.
            if self._is_current():
                break
            os.close(self._descriptor)
        self._announce(bool(taken))

    def _say(self, host: str) -> None:
        if not self._said:
            self._said = True
            name = self._path.name[len(LOCK) :].partition("-")[2]
            where = f" on {host}" if host else ""
            print(f"drydock: waiting for another build of {name}{where}", file=sys.stderr, flush=True)

    def _is_current(self) -> bool:
        try:
            there, here = os.lstat(self._path), os.fstat(self._descriptor)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def _announce(self, locked: bool) -> None:
        """Make the link, once nobody has it who lives; `locked` says that nobody of this machine can."""
        from builder.embedded import lifeline

        sign, since = 0, 0.0
        while True:
            try:
                os.symlink(_who(), self._note)
                self._inode = os.lstat(self._note).st_ino
            except FileExistsError:
                pass
            except OSError:
                return  # a build of its own says what is wrong here
            else:
                lifeline.touch(self._note)
                return
            who = _read_claim(self._note)
            last = self._signed()
            if last != sign:
                sign, since = last, time.monotonic()
            if not (locked and _is_of_this_start(who)) and time.monotonic() - since <= 3 * lifeline.SIGN:
                self._say(printable(str(who.get("host", ""))))
                time.sleep(0.2)
                continue
            try:
                os.unlink(self._note)
            except FileNotFoundError:  # somebody who waited too was faster
                continue
            except OSError:
                return

    def _signed(self) -> int:
        try:
            return os.lstat(self._note).st_mtime_ns
        except OSError:
            return 0

    def release(self) -> None:
        """Let go of it, and leave nothing behind."""
        try:
            if self._inode and os.lstat(self._note).st_ino == self._inode:
                os.unlink(self._note)
        except OSError:  # somebody took us for dead
            pass
        try:
            if self._is_current():
                os.unlink(self._path)
        except OSError:
            pass
        os.close(self._descriptor)
