"""Folders by descriptor: what is opened is what was made, whatever happens to its name meanwhile.

A path says where to look, not what is there: between two calls a folder can be renamed, removed, or replaced by a link
to somebody's own. A descriptor stays with the folder that was opened (POSIX, openat).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from builder.embedded.errors import StageError

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


_mode = 0o755


def is_shared(folder: Path) -> bool:
    """Whether a folder is one of a group: setgid, and the group may write to it. What is made in it is so, too.

    The generated scripts have the same rule (templates/run.sh.j2, grouped).
    """
    wanted = stat.S_ISGID | stat.S_IWGRP
    try:
        return os.stat(folder).st_mode & wanted == wanted
    except OSError:
        return False


def share(path: Path) -> None:
    """Let the group write to what was just made, where it is in a folder of a group; what is not ours stays."""
    if is_shared(path.parent):
        try:
            os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | (0o2070 if path.is_dir() else 0o060))
        except PermissionError:
            pass


def build_in(home: Path) -> None:
    """Let the group delete what this process begins in a store that is shared, whatever the umask."""
    global _mode
    if is_shared(home):
        os.umask(0o002)
        _mode = 0o775
        # Links into the cache of one user have its modes, and these are not ours to change.
        os.environ["UV_LINK_MODE"] = "copy"


def mode_of(mode: int) -> int:
    """The mode that a file gets which had `mode`: in a shared store the group may read it, and link it.

    Linux lets nobody link what they may not write (proc(5), protected_hardlinks).
    """
    return mode | 0o064 | (0o011 if mode & 0o100 else 0) if _mode == 0o775 else mode


def give_to_group(top: Path) -> None:
    """Give the files below a folder, which are ours, their `mode_of`."""
    if _mode != 0o775:
        return
    for folder, _, files in os.walk(top):
        for name in files:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode) and mode != mode_of(mode):
                try:
                    os.chmod(path, stat.S_IMODE(mode_of(mode)))
                except PermissionError:  # linked bytecode of another member's
                    pass


def make_in(name: str, parent: int) -> None:
    """Make a folder in an open one. Raises FileExistsError."""
    os.mkdir(name, _mode, dir_fd=parent)


def make_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    """Make a folder of a name that nobody can guess, and open it: its path and its descriptor.

    Raises StageError where something else stands there by the time it is opened.
    """
    path = parent / f"{prefix}{os.urandom(6).hex()}"
    os.mkdir(path, 0o755)
    if is_shared(parent):
        os.chmod(path, 0o2775)
    descriptor = os.open(path, _FLAGS)
    if os.listdir(descriptor):
        os.close(descriptor)
        raise StageError(f"{path} was replaced in the moment when it was made")
    return path, descriptor


def is_at(path: Path, descriptor: int) -> bool:
    """Whether the folder that is open as `descriptor` is the one that stands at `path`, which may not be a link."""
    try:
        there, here = os.lstat(path), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def is_below(path: str) -> bool:
    """Whether a path that others wrote is of something below the folder that it is relative to, written plainly.

    >>> [is_below(path) for path in ("a", "a/b", "", "/a", "../a", "a/..", "a//b", "./a", "a\\0b")]
    [True, True, False, False, False, False, False, False, False]
    """
    return "\0" not in path and not {"", ".", ".."}.intersection(path.split("/"))


def in_order(paths: Sequence[str]) -> list[str]:
    """Relative paths of folders so that each comes after the one that it is in, and right after its neighbours."""
    return sorted(paths, key=lambda path: path.split("/"))


def opened(top: int, paths: Sequence[str], *, make: bool = False) -> Iterator[tuple[str, int]]:
    """Each folder of `paths`, which are `in_order` and name every folder on the way, with a descriptor for it.

    "" is `top` itself. No link is followed. With `make`, what is missing is made. Raises OSError (ENOTDIR, ELOOP)
    where a link stands in place of a folder.
    """
    stack: list[tuple[str, int]] = []
    try:
        for path in paths:
            if not path:
                yield path, top
                continue
            parent, _, name = path.rpartition("/")
            while stack and stack[-1][0] != parent:
                os.close(stack.pop()[1])
            above = stack[-1][1] if stack else top
            if make:
                try:
                    make_in(name, above)
                except FileExistsError:
                    pass
            stack.append((path, os.open(name, _FLAGS, dir_fd=above)))
            yield path, stack[-1][1]
    finally:
        for _, descriptor in stack:
            os.close(descriptor)


def open_below(top: int, path: str, *, make: bool = False) -> int:
    """A descriptor of the folder at a relative path, as `opened` opens it; "" is `top` itself."""
    found = -1
    for one, descriptor in opened(top, with_parents([path]), make=make):
        if one == path:
            found = os.dup(descriptor)
    return found


def create(top: int, path: str, mode: int = 0o644) -> int:
    """Make a file at a relative path where nothing is, and open it for writing; no link is followed on the way."""
    folder, _, name = path.rpartition("/")
    parent = open_below(top, folder)
    try:
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent)
    finally:
        os.close(parent)


def with_parents(paths: Sequence[str]) -> list[str]:
    """The folders on the way to `paths` and these themselves, `in_order`; the top only where it is among them.

    >>> with_parents(["a/b", "c"]), with_parents(["a", ""])
    (['a', 'a/b', 'c'], ['', 'a'])
    """
    found: set[str] = {path for path in paths if not path}
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return in_order(list(found))


def make_writable(path: Path) -> None:
    """Let a folder be renamed and emptied; a link or a file is left as it is."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        return
    try:
        os.fchmod(descriptor, 0o755)
    finally:
        os.close(descriptor)


def remove(parent: int, name: str) -> None:
    """Delete what is called `name` in the folder `parent`, with all that is in it; no link is followed.

    What vanishes meanwhile is gone too, and is no error.
    """
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError:  # a file, or a link
        _unlink(parent, name)
        return
    try:
        try:
            os.fchmod(descriptor, 0o700)  # finished environments are read-only
        except PermissionError:  # somebody else's folder, which we may write to all the same where it is shared
            pass
        with os.scandir(descriptor) as entries:
            below = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for one, is_folder in below:
            if is_folder:
                remove(descriptor, one)
            else:
                _unlink(descriptor, one)
    finally:
        os.close(descriptor)
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        pass


def _unlink(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass


def take_away(path: Path, aside: Path) -> None:
    """Rename a folder of ours to `aside`; or delete it where it stands, if it cannot be renamed.

    On an overlay file system folders of the lower layer cannot (EXDEV; linux, overlayfs, "redirect_dir"). Then what an
    environment is known by goes first, so that nobody takes what is left of it for one.
    """
    if not os.access(path, os.W_OK):  # another member's, in a shared store, has a mode that is not ours to change
        make_writable(path)
    try:
        os.rename(path, aside)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        make_writable(path / ".drydock")
        (path / ".drydock" / "manifest.json").unlink(missing_ok=True)
        remove_path(path)


def remove_path(path: Path) -> None:
    """Delete a path of ours, as `remove` does; the folder that it is in is opened by its path."""
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove(parent, path.name)
    finally:
        os.close(parent)
