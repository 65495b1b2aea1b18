"""Files of an open folder exchanged for others, so that all of it can be taken back, also after a kill in the middle.

What is exchanged is in a folder BEFORE below it: `new` has what comes, `files` what was moved aside, and the journal
says of both, before the first file is moved. `done` is there where the exchange came to its end. All is done by rename,
relative to the open folder, in which this process stands; no link is followed.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from typing import Any

from builder.embedded import folders
from builder.embedded.errors import StageError

NEW = "new"
_FILES, _CHANGED, _JOURNAL, _DONE = "files", "changed", "journal.json", "done"


def is_done(before: str) -> bool:
    """Whether an exchange came to its end, and nobody has begun to take it back."""
    return os.path.exists(f"{before}/{_DONE}")


def packages(before: str) -> dict[str, Any]:
    """What the journal of an exchange says that it was about; empty where it never began."""
    return dict(_journal(before)["about"])


def prepare(top: int, before: str, leaving: Iterable[str], about: dict[str, Any]) -> None:
    """Write the journal: the files `leaving` go, with the bytecode of theirs, and those in `before`/new come.

    Raises StageError where that cannot be done; nothing was changed then.
    """
    new = f"{before}/{NEW}"
    added = {}
    for folder, _, names in os.walk(new):
        for path in (os.path.relpath(f"{folder}/{name}", new) for name in names):
            added[path] = _state(f"{new}/{path}")
    for path in added:
        if os.path.isdir(path) and not os.path.islink(path):
            raise StageError(f"{path} is a folder, where a package has a file")
    going = {path for path in leaving if not _is_folder(path)}
    kept = sorted(path for path in {*going, *bytecode_of(going), *added} if os.path.lexists(path))
    _check_folders({*kept, *added}, set(kept))
    _write(top, f"{before}/{_JOURNAL}", json.dumps({"about": about, "kept": kept, "added": added}))


def exchange(top: int, before: str) -> None:
    """Do what the journal says."""
    journal = _journal(before)
    _move(top, f"{before}/{_FILES}", journal["kept"])
    _remove_empty(top, journal["kept"])
    _move(top, f"{before}/{NEW}", journal["added"], back=True)
    _remove(top, before, NEW)
    _write(top, f"{before}/{_DONE}", "")


def take_back(top: int, before: str, others: Iterable[str]) -> str:
    """Undo an exchange, however far it came, or was taken back before.

    Files that somebody changed since are moved aside, and so are `others`; returns the folder where they are, or "".
    """
    if os.path.lexists(f"{before}/{_DONE}"):
        os.unlink(f"{before}/{_DONE}")
    journal = _journal(before)
    added = journal["added"]
    kept = [path for path in journal["kept"] if os.path.lexists(f"{before}/{_FILES}/{path}")]
    original = {*journal["kept"]} - {*kept}  # stand where they stood, again or still
    made = {*bytecode_of(added)} - original  # by Python, of what we brought
    there = {path for path in {*added, *kept, *others} - original - made if os.path.lexists(path)}
    ours = {path for path in there if added.get(path) == _state(path)}
    if there - ours:
        _move(top, f"{before}/{_CHANGED}", there - ours)
    gone = _by_folder(ours | made)
    for path, here in folders.opened(top, folders.with_parents(list(gone))):
        for name in gone.get(path, ()):
            os.unlink(name, dir_fd=here)
    _remove_empty(top, {*added, *there, *made})
    if kept:
        _move(top, f"{before}/{_FILES}", kept, back=True)
    if not os.path.lexists(f"{before}/{_CHANGED}"):
        folders.remove(top, before)
        return ""
    _remove(top, before, _FILES, NEW, _JOURNAL)
    changed = before.replace("before", _CHANGED)
    os.rename(before, changed, src_dir_fd=top, dst_dir_fd=top)
    return changed


def bytecode_of(paths: Iterable[str]) -> list[str]:
    """The bytecode that is there of some modules, of whatever Python."""
    found = []
    for folder, names in _by_folder(path for path in paths if path.endswith(".py")).items():
        cache = f"{folder}/__pycache__" if folder else "__pycache__"
        stems = {name[:-3] for name in names}
        if _is_folder(cache):
            found += [f"{cache}/{name}" for name in os.listdir(cache) if name.partition(".")[0] in stems]
    return found


def _journal(before: str) -> dict[str, Any]:
    try:
        with open(f"{before}/{_JOURNAL}", encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
    except FileNotFoundError:  # nothing had been moved yet
        return {"about": {}, "kept": [], "added": {}}
    except ValueError:
        raise StageError(f"{before}/{_JOURNAL} cannot be read", "was it edited?") from None
    for path in [*found["kept"], *found["added"]]:
        if not folders.is_below(path):
            raise StageError(f"{before}/{_JOURNAL} names {path}, which is outside", "who edited it?")
    return found


def _state(path: str) -> list[int]:
    """What tells a file of ours from one that somebody changed."""
    state = os.lstat(path)
    return [state.st_size, state.st_mtime_ns]


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _check_folders(paths: Iterable[str], leaving: set[str]) -> None:
    """Raise StageError where a folder on the way to some files is none, is a link, or cannot be written."""
    direct = _by_folder(paths)
    for folder in folders.with_parents(list(direct)):
        try:
            mode = os.lstat(folder).st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(mode):
            raise StageError(f"{folder} is a link, and nothing is changed through one")
        if not stat.S_ISDIR(mode) and folder not in leaving:
            raise StageError(f"{folder} is a file, where a package has a folder")
        if folder in direct and not os.access(folder, os.W_OK | os.X_OK):
            raise StageError(f"{folder} cannot be written")


def _by_folder(paths: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        found.setdefault(folder, []).append(name)
    return found


def _move(top: int, aside: str, paths: Iterable[str], *, back: bool = False) -> None:
    """Move files below `top` to the same paths below `aside`, or from there `back`."""
    by_folder = _by_folder(paths)
    other = folders.open_below(top, aside, make=True)
    source, target = (other, top) if back else (top, other)
    order = folders.with_parents(list(by_folder))
    try:
        for (path, there), (_, here) in zip(folders.opened(source, order), folders.opened(target, order, make=True)):
            for name in by_folder.get(path, ()):
                os.rename(name, name, src_dir_fd=there, dst_dir_fd=here)
    finally:
        os.close(other)


def _write(top: int, path: str, text: str) -> None:
    """Write a file, whole or not at all."""
    parent, _, name = path.rpartition("/")
    new = f".{name}.new"
    folder = folders.open_below(top, parent)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
    os.close(folder)


def _remove(top: int, before: str, *names: str) -> None:
    folder = folders.open_below(top, before)
    for name in names:
        folders.remove(folder, name)
    os.close(folder)


def _remove_empty(top: int, paths: Iterable[str]) -> None:
    for folder in reversed(folders.with_parents([folder for folder in _by_folder(paths) if folder])):
        parent, _, name = folder.rpartition("/")
        try:
            above = folders.open_below(top, parent)
        except OSError:  # it is gone, or never was
            continue
        try:
            os.rmdir(name, dir_fd=above)
        except OSError:  # something else is in it
            pass
        finally:
            os.close(above)
