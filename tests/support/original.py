"""A desk that many tests use, each as if it were the first."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from copy import copy
from pathlib import Path

from tests.support.sandbox import Sandbox

# What commands keep to be quicker: each test may find what another one made, as it may be a user's tenth command.
_CACHES = "home/.local/share/drydock/cache"

State = tuple[int, int, int]
Content = bytes | str | None


class Original:
    """What a desk has: its files, its variables, and how its index behaves."""

    def __init__(self, desk: Sandbox) -> None:
        self._desk = desk
        self._files = {path: (_state(path), _content(path)) for path in self._paths()}
        self._environment = dict(desk.environment)
        desk.index.requests.clear()
        self._index = {name: copy(value) for name, value in vars(desk.index).items() if not name.startswith("_")}

    def restore(self) -> None:
        """Take away what tests have added, and put back what they have changed."""
        for path in list(self._paths()):
            if path not in self._files and os.path.lexists(path):
                _remove(path)
        for path, (state, content) in self._files.items():
            if not os.path.lexists(path) or _state(path) != state:
                self._files[path] = _put(path, state, content), content
        for path, (state, content) in self._files.items():
            if content is None and path.stat().st_mode != state[0]:
                path.chmod(stat.S_IMODE(state[0]))
        self._desk.environment.clear()
        self._desk.environment.update(self._environment)
        vars(self._desk.index).update({name: copy(value) for name, value in self._index.items()})

    def _paths(self) -> Iterator[Path]:
        caches = self._desk.root / _CACHES
        waiting = [self._desk.root]
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    path = Path(entry.path)
                    if path != caches:
                        yield path
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(path)


def _state(path: Path) -> State:
    """What changes when a file does; of a folder, only its mode."""
    found = path.lstat()
    return (found.st_mode, 0, 0) if stat.S_ISDIR(found.st_mode) else (found.st_mode, found.st_size, found.st_mtime_ns)


def _content(path: Path) -> Content:
    if path.is_symlink():
        return str(path.readlink())
    return path.read_bytes() if path.is_file() else None


def _put(path: Path, state: State, content: Content) -> State:
    """Make it as it was, whatever stands there now, but for the mode of a folder; returns its state."""
    _open(path.parent)
    if content is None:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            path.mkdir()
        return state
    if os.path.lexists(path):
        _remove(path)
    if isinstance(content, str):
        path.symlink_to(content)
    else:
        path.write_bytes(content)
        path.chmod(stat.S_IMODE(state[0]))
        os.utime(path, ns=(state[2], state[2]))
    return _state(path)


def _remove(path: Path) -> None:
    _open(path.parent)
    if path.is_dir() and not path.is_symlink():
        for folder, _, _ in os.walk(path):
            _open(Path(folder))
        shutil.rmtree(path)
    else:
        path.unlink()


def _open(folder: Path) -> None:
    """Let its owner write there: what is in a store is read-only."""
    folder.chmod(folder.stat().st_mode | stat.S_IRWXU)
