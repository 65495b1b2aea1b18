"""Files and folders written whole or not at all, and folders removed."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from builder.embedded import state
from builder.embedded.folders import share
from builder.errors import UsageError


def read_regular(path: Path, limit: int = state.LARGE) -> bytes:
    """The content of a file of the user's, of at most `limit` bytes.

    Raises OSError, whose words are for the user; also where it is no regular file: to open a FIFO waits for a writer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
            words = os.strerror(number) if number == errno.EISDIR else "it is not a regular file"
            raise OSError(number, words, str(path))
        content = b""
        while len(content) <= limit and (part := os.read(descriptor, min(found.st_size, limit) + 4096)):
            content += part
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit >> 20} MiB", str(path))
    return content


def not_utf8(content: bytes) -> str:
    """What a text is that cannot be decoded, in words."""
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff")) or content[1:64:2].count(0) > len(content[:64]) // 4
    return "it is UTF-16, and not UTF-8" if wide else "not UTF-8"


def is_there(path: Path) -> bool:
    """Whether there is a file to read, or what `read_regular` has words for; a folder is none, nor is a broken link."""
    return path.exists() and not path.is_dir()


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing.

    In a folder of a group (setgid, and the group may write) the group may write to it too, whatever the umask: a store
    of several people is one (docs/how-to/shared-store.md).
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        with suppress(FileExistsError):
            one.mkdir()
            share(one)


def write_atomically(path: Path, text: str, *, executable: bool = False) -> None:
    """Put `text` at `path` by a rename: a reader sees the old file or the new one, never half of one."""
    new = beside(path)
    make_folder(path.parent)
    try:
        new.write_text(text, encoding="utf-8")
        new.chmod(0o755 if executable else 0o644)
        share(new)
        new.replace(path)
    except OSError as error:  # that of a write knows no file
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        new.unlink(missing_ok=True)


def link_atomically(target: str, path: Path) -> None:
    """A link to `target` at `path`, by a rename: a reader sees the old one or the new one."""
    new = beside(path)
    new.symlink_to(target)
    try:
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def owner(path: Path) -> str:
    """The name of the user whom a path belongs to, for a message."""
    import pwd

    try:
        uid = path.lstat().st_uid
    except OSError:
        return "somebody"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def exchange(one: Path, other: Path) -> bool:
    """Let what stands at two paths change places in one step; False, and nothing is done, where that cannot be.

    renameat2(2) on Linux, renamex_np(2) on macOS; not every file system has it.
    """
    import ctypes

    libc = ctypes.CDLL(None)
    first, second = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        done: int = libc.renamex_np(first, second, 2) if hasattr(libc, "renamex_np") else -1  # RENAME_SWAP
    else:
        here = -100  # AT_FDCWD
        done = libc.renameat2(here, first, here, second, 2) if hasattr(libc, "renameat2") else -1  # RENAME_EXCHANGE
    return done == 0


def beside(path: Path) -> Path:
    """Return a name beside `path` that nobody else writes to.

    By a process id it would not be one, where several machines or containers share a store.
    """
    return path.with_name(f".{path.name}.{int.from_bytes(os.urandom(6))}")


def is_beside(path: Path) -> bool:
    """Whether a path has a name as `beside` makes them: a file before it gets its own."""
    return re.fullmatch(r"\..+\.[0-9]+", path.name) is not None


def is_being_written(path: Path) -> bool:
    """Whether somebody may be at work on such a file: one whose writer was killed is a minute old at some time."""
    return is_beside(path) and age(path) < 60


def age(path: Path) -> float:
    """Seconds since a path was changed; none where there is nothing any more: it has another name, or was removed."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


def hash_of(path: Path) -> str:
    """The sha256 of a file, which may be larger than the memory. Raises OSError."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def owns(path: Path, made: Callable[[str], bool]) -> bool:
    """Whether a file is Drydock's: a file and no link, and `made` says so of its text."""
    text = None if path.is_symlink() else state.read_text(path, state.LARGE)
    return text is not None and made(text)


def check_ours(path: Path, made: Callable[[str], bool], other: str = "", maker: str = "Drydock") -> None:
    """Raise UsageError where anything is at `path` that `maker` did not make: what a user wrote is never lost.

    `other` is the option that names another place, where there is one.
    """
    if os.path.lexists(path) and not owns(path, made):
        raise not_ours(path, other, maker)


def not_ours(path: Path, other: str = "", maker: str = "Drydock") -> UsageError:
    """The error for a file of the user's where one of ours is to be."""
    hint = f"move it away, or choose another {other}" if other else "move it away"
    return UsageError(f"{display(path)} was not made by {maker}", hint=hint)


def replace_ours(path: Path, text: str, made: Callable[[str], bool], other: str = "", maker: str = "Drydock") -> None:
    """Write `text` to `path`, over a file of ours at most. Raises UsageError as `check_ours`."""
    check_ours(path, made, other, maker)
    write_atomically(path, text)


def display(path: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def write_new(path: Path, text: str) -> None:
    """Put `text` at `path`, whole or not at all. Raises UsageError where anything is there, a broken link too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        raise UsageError(f"{path} already exists", hint="move it away, or use another name") from None
    try:
        with file:
            file.write(text)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts into a new folder, by their relative paths."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def remove_tree(path: Path) -> None:
    """Delete a folder of the store; finished environments are read-only, so their folders are opened first."""
    for folder, folders, _ in os.walk(path):
        with suppress(FileNotFoundError):  # somebody else deletes it too
            Path(folder).chmod(0o755)
        folders[:] = [name for name in folders if not (Path(folder) / name).is_symlink()]
    import shutil  # here, because most commands remove nothing

    shutil.rmtree(path, ignore_errors=True)


def states(folder: str | Path) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of change of all code and templates below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((".py", ".j2")):
                found = entry.stat()
                yield entry.path, found.st_size, found.st_mtime_ns
            elif entry.is_dir(follow_symlinks=False) and entry.name != "__pycache__":
                yield from states(entry.path)
