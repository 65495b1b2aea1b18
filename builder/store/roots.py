"""Garbage collection roots: who still needs a store path, or a source.

    gcroots/running/KEY-NAME.HOST.BOOT.PID
        a process that builds, trains or looks; a FIFO that it holds open, where the file system has such: then the
        kernel says whether anybody does
    gcroots/scripts/KEY-NAME.HOST
        the scripts that were run on that machine, a path a line; each a root as long as it is there and of that key
    gcroots/sources/SHA256.HOST
        the lock files that refer to the content of a source, a path a line; each a root as long as it says so
    gcroots/collecting
        who is choosing what to collect; whoever comes meanwhile waits

What another machine wrote cannot be judged here: it is a root until its lease is over. The generated scripts write and
read these too (templates/run.sh.j2, hold).
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from builder.embedded import claim, state
from builder.embedded.folders import share
from builder.errors import DrydockError, ToolError
from builder.files import age, make_folder
from builder.store import generations
from builder.store.layout import Store

LEASE = 14 * 86400.0
"""Seconds that what cannot be judged from here is a root for."""

_held: dict[str, int] = {}
"""Store names that this process holds, and the descriptors of their FIFOs."""


class Mark(NamedTuple):
    """The root of a process: of which store path, and which process of which start of which machine.

    What an older Drydock made names no machine: `host` is empty then.
    """

    path: Path
    store_name: str
    host: str
    boot: str
    pid: int


def host() -> str:
    """This machine's name, as the names of roots have it; as know_machine of templates/run.sh.j2."""
    short = os.uname().nodename.partition(".")[0]
    return short if re.fullmatch(r"[A-Za-z0-9_-]+", short) else "unknown"


def boot() -> str:
    """The name of this start of this machine, as the names of roots have it; 0 where the system has none."""
    return claim.boot() or "0"


def hold(store_name: str) -> None:
    """Make a store path a root as long as this process lives (a program that it becomes, too).

    In a store that cannot be written to nothing is collected either, and nothing has to be held.
    """
    own = _own(store_name)
    try:
        _held.setdefault(store_name, _opened(own))
    except OSError:
        return
    for _ in range(50):  # a collection looks at the roots again before it takes anything
        if not _someone_collects():
            return
        time.sleep(0.1)


def _opened(own: Path) -> int:
    """Make a FIFO and hold it open; -1 where there is only a file, as some file systems have no FIFOs."""
    make_folder(own.parent)
    for _ in range(3):
        try:
            os.mkfifo(own, 0o660)
            own.chmod(0o660)  # whoever may collect must be able to ask
        except FileExistsError:
            own.touch()
        except OSError:
            own.touch()
            return -1
        with suppress(FileNotFoundError):
            descriptor = os.open(own, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            if own.exists():  # else a collection found it in the moment before it was open
                # A program that this process becomes holds it too; subprocesses do not, as subprocess closes it.
                os.set_inheritable(descriptor, True)
                return descriptor
            os.close(descriptor)
    return -1


def mark(store_name: str) -> Path:
    """The path of the root of a process of this machine, without the `.PID` at its end."""
    return _folder() / "running" / f"{store_name}.{host()}.{boot()}"


def release(store_name: str) -> None:
    """Let go of what `hold` held."""
    with suppress(OSError):
        _own(store_name).unlink()
    descriptor = _held.pop(store_name, -1)
    if descriptor >= 0:
        os.close(descriptor)


def _own(store_name: str) -> Path:
    path = mark(store_name)
    return path.with_name(f"{path.name}.{os.getpid()}")


@contextmanager
def collecting() -> Iterator[None]:
    """Choose what to collect while nobody can begin to use it: a new user's root is seen, or the user waits.

    Raises DrydockError where another collection is choosing.
    """
    path = _folder() / "collecting"
    make_folder(path.parent)
    descriptor = _claimed(path)
    try:
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {host()} {boot()}\n".encode())
        except OSError as error:  # that of a write knows no file
            raise OSError(error.errno, error.strerror, str(path)) from None
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _claimed(path: Path) -> int:
    """The lock of a collection, open. Raises DrydockError where another one has it, or it is another's for good."""
    another = DrydockError("another collection is under way", hint="wait until it ends, then try again")
    while True:
        if path.is_dir() or (path.exists() and not path.is_file()):
            raise DrydockError(f"{path} is not a file of Drydock's", hint="move it away")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o664)
        except PermissionError:
            if _someone_collects():
                raise another from None
            path.unlink()  # of one that died, of another user
            continue
        with suppress(PermissionError):
            os.fchmod(descriptor, 0o664)
        taken = claim.lock(descriptor)
        for _ in range(5):  # who asks whether there is a collection has the lock for a moment
            if taken is not False:
                break
            time.sleep(0.05)
            taken = claim.lock(descriptor)
        if taken is False or (taken is None and _someone_collects()):
            os.close(descriptor)
            raise another
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # it ended in this moment, and took its file away


def renew_collecting() -> None:
    """Say that the collection of this process is still at work."""
    with suppress(OSError):
        os.utime(_folder() / "collecting")


def roots() -> dict[str, str]:
    """Every store name that is needed, and a word on who needs it. Removes the traces of what is gone."""
    found = dict.fromkeys(generations.roots(), "generation")
    for store_name, script in scripts():
        found.setdefault(store_name, f"script {script}")
    for one in running():
        elsewhere = f" of {one.host}" if one.host not in ("", host()) else ""
        found[one.store_name] = f"process {one.pid}{elsewhere}"
    return found


def running() -> list[Mark]:
    """The processes that use a store path, as far as is known. Removes the traces of dead ones."""
    alive = []
    for path in _entries("running"):
        one = _mark(path)
        if one is None:
            continue  # somebody else's file
        if _lives(one):
            alive.append(one)
        else:
            with suppress(OSError):
                path.unlink()
    return alive


def _mark(path: Path) -> Mark | None:
    """What the name of a root of a process says; None for a file of somebody else's.

    >>> _mark(Path("kkk-cpu.here.0.7")), _mark(Path("kkk-cpu.7")).host, _mark(Path(".DS_Store"))
    (Mark(path=PosixPath('kkk-cpu.here.0.7'), store_name='kkk-cpu', host='here', boot='0', pid=7), '', None)
    """
    found = re.fullmatch(r"([0-9a-z]+-[a-z0-9-]+)(?:\.([A-Za-z0-9_-]+)\.([0-9a-f-]+))?\.([0-9]+)", path.name)
    return None if found is None else Mark(path, found[1], found[2] or "", found[3] or "", int(found[4]))


def _lives(one: Mark) -> bool:
    """Whether the process of a root lives. What cannot be known is alive, until the lease is over."""
    holder = _is_open(one.path)
    if holder:
        return True
    if one.boot == boot() and (one.host == host() or (one.boot != "0" and holder is False)):
        # Nobody has the FIFO open: the process is dead, or has closed what it inherited. What has its number in another
        # container is somebody else, and began at another time.
        return one.host == host() and _is_ours(one.pid, one.path, within=math.inf if holder is None else 60)
    return age(one.path) < LEASE


def _is_open(path: Path) -> bool | None:
    """Whether anybody on this machine holds a FIFO open; None where this cannot be asked, or it is none."""
    try:
        if not stat.S_ISFIFO(path.lstat().st_mode):
            return None
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError as error:
        return False if error.errno in (errno.ENXIO, errno.ENOENT) else None
    return True


def scripts() -> Iterator[tuple[str, Path]]:
    """The scripts that were run from elsewhere and are still there: store name and script. Forgets the others."""
    for path, store_name, there in _files("scripts"):
        living = [line for line in _lines(path) if is_of(Path(line), store_name.partition("-")[0])]
        if living:
            _renew(path, there)
        if living or _is_leased(path, there):
            yield store_name, Path((living or _lines(path) or ["?"])[0])


def is_of(script: Path, key: str) -> bool:
    """Whether a script is still there and still of that key: it may have been rendered again."""
    head = state.read_head(script, 8192)
    return f"key='{key}'".encode() in head


def sources() -> set[str]:
    """The contents of sources that a lock file refers to. Forgets the lock files that do not any more."""
    needed = set()
    for path, sha256, there in _files("sources"):
        if any(_mentions(Path(line), sha256) for line in _lines(path)):
            _renew(path, there)
            needed.add(sha256)
        elif _is_leased(path, there):
            needed.add(sha256)
    return needed


def mark_source(sha256: str, lock: Path) -> None:
    """Make the content of a source a root as long as the file `lock` refers to it."""
    path = _folder() / "sources" / f"{sha256}.{host()}"
    if str(lock) not in _lines(path):
        _append(path, str(lock))


def _append(path: Path, line: str) -> None:
    try:
        make_folder(path.parent)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o664)
    except OSError:
        return  # in a store that cannot be written to nothing is collected either
    with suppress(OSError):
        share(path)
        os.write(descriptor, os.fsencode(f"{line}\n"))
    os.close(descriptor)


def _lines(path: Path) -> list[str]:
    return (state.read_text(path) or "").splitlines()


def _renew(path: Path, there: str) -> None:
    """Another machine knows from its time that this root was good when this machine last looked."""
    if there == host():
        with suppress(OSError):
            os.utime(path)


def _is_leased(path: Path, there: str) -> bool:
    """Whether a root that nothing here speaks for is one all the same: it is another machine's. Else forgets it."""
    ours = there == host() and state.read_bytes(path) is not None
    if not ours and age(path) < LEASE:
        return True
    with suppress(OSError):
        path.unlink()
    return False


def _mentions(lock: Path, sha256: str) -> bool:
    return f'"{sha256}"' in (state.read_text(lock, state.LARGE, follow=True) or "")


def _is_ours(number: int, mark: Path, *, within: float = math.inf) -> bool:
    """Whether the process that made `mark` lives; one that began later only has the same number.

    So has one that began more than `within` seconds before.
    """
    from builder.embedded import lifeline  # here, because to hold a root takes none

    if not lifeline.is_alive(number):
        return False
    with suppress(ToolError, ValueError, OSError):
        from builder import process  # here, because most systems have /proc

        (done,) = process.run_all([["ps", "-o", "etime=", "-p", str(number)]], timeout=10, env=os.environ)
        elapsed = _seconds(done.stdout.strip() if done is not None else "")
        return -5 <= mark.lstat().st_mtime - (time.time() - elapsed) <= within
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
    """Whether a collection is choosing, on any machine; one that was killed counts for a minute, if at all."""
    path = _folder() / "collecting"
    words = (state.read_text(path) or "").split()
    if words[1:] != [host(), boot()]:
        return len(words) == 3 and age(path) < 60
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        taken = claim.lock(descriptor)
    finally:
        os.close(descriptor)
    return not taken if taken is not None else words[0].isdecimal() and _is_ours(int(words[0]), path)


def unknown() -> Iterator[Path]:
    """What lies among the roots and is not Drydock's."""
    own = re.compile(r"running|scripts|sources|collecting|\..+\.[0-9]+|\.lock")
    yield from (path for path in _entries(".") if not own.fullmatch(path.name))
    yield from (path for path in _entries("running") if _mark(path) is None)
    for kind in _NAMES:
        known = {path for path, _, _ in _files(kind)}
        yield from (path for path in _entries(kind) if path not in known)


_NAMES = {"scripts": r"[0-9a-z]+-[a-z0-9-]+", "sources": r"[0-9a-f]{64}"}


def _files(kind: str) -> Iterator[tuple[Path, str, str]]:
    """The files of a kind of root: path, what it is a root of, and the machine; "" where an older Drydock wrote it."""
    for path in _entries(kind):
        if found := re.fullmatch(rf"({_NAMES[kind]})(?:\.([A-Za-z0-9_-]+))?", path.name):
            yield path, found[1], found[2] or ""


def _entries(kind: str) -> list[Path]:
    try:
        return sorted((_folder() / kind).iterdir())
    except OSError:
        return []


def _folder() -> Path:
    return Store.here().roots
