"""The content of a source: regular files with plain names, within limits, and one hash over all of them."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from builder.embedded.folders import is_below
from builder.errors import SourceError
from builder.files import hash_of

MAX_FILES = 10_000
MAX_BYTES = 64 * 2**20
_MAX_NAME = 512
_PIECE = 2**18


class Tree:
    """Takes files into the empty folder `root`. Nothing but regular files and their folders ever comes to be there.

    Who made the archive chose the names: each is checked before it becomes a path.
    """

    def __init__(self, root: Path, most: int = MAX_BYTES) -> None:
        self._root = root
        self._most = most
        self._bytes = 0
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._spelled: dict[str, str] = {}

    def add(self, name: str, content: BinaryIO) -> None:
        """Take a file. Raises SourceError for a name that is none, or is there already, and where it is too much."""
        parts = self._checked(name)
        path = self._root.joinpath(*parts)
        if len(parts) > 1:
            path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            while piece := content.read(_PIECE):
                self._bytes += len(piece)
                if self._bytes > self._most:
                    raise SourceError(f"more than {self._most // 2**20} MB, unpacked", hint=_SMALL)
                file.write(piece)

    def _checked(self, name: str) -> list[str]:
        parts = name.split("/")
        if not name.isprintable() or "\\" in name or len(name) > _MAX_NAME:
            raise SourceError(f"a file in it is called {name[:100]!a}, which is not a plain name")
        if not is_below(name) or name[1:2] == ":":
            raise SourceError(f"a file in it, {name}, leads out of it")
        if len(self._files) >= MAX_FILES:
            raise SourceError(f"more than {MAX_FILES} files", hint=_SMALL)
        for depth in range(1, len(parts)):
            folder = self._folded("/".join(parts[:depth]), name)
            if folder in self._files:
                raise SourceError(f"{name} is in it, and so is a file where its folder is")
            self._folders.add(folder)
        folded = self._folded(name, name)
        if folded in self._files or folded in self._folders:
            raise SourceError(f"{name} is in it twice")
        self._files.add(folded)
        return parts

    def _folded(self, path: str, name: str) -> str:
        """A path as the file systems of macOS tell it from another: two that are one there are refused."""
        folded = unicodedata.normalize("NFC", path).casefold()
        spelled = self._spelled.setdefault(folded, path)
        if spelled != path:
            raise SourceError(f"{name} is in it, and {spelled} too: on some machines these are one")
        return folded


_SMALL = "a source is small: profiles, locks, patches, proofs, trainers"


def files_in(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file below `root`: its name with slashes, and its path. Raises SourceError for what is no regular file."""
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                for name, path in files_in(Path(entry.path)):
                    yield f"{entry.name}/{name}", path
            elif entry.is_file(follow_symlinks=False):
                yield entry.name, Path(entry.path)
            else:
                raise SourceError(f"{entry.path} is not a regular file", hint="replace the link by the file")


def content_hash(root: Path, files: Iterable[str] | None = None) -> str:
    """The sha256 of `sha256, two spaces, name, newline` of every file below `root`, sorted by name.

    Modes and times do not count. `(cd ROOT && find . -type f | LC_ALL=C sort | sed 's|^./||' | xargs -d '\\n'
    sha256sum | sha256sum)` says the same. Where `files` are named, only they count. Raises SourceError, and OSError
    where a file cannot be read.
    """
    whole = hashlib.sha256()
    for name in sorted(files if files is not None else (name for name, _ in files_in(root))):
        whole.update(f"{hash_of(root / name)}  {name}\n".encode())
    return whole.hexdigest()


def close(root: Path) -> None:
    """Take away every right to write below `root`; `root` itself stays open, so that it can be renamed."""
    for folder, folders, files in os.walk(root):
        for name in files:
            (Path(folder) / name).chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        for name in folders:
            (Path(folder) / name).chmod(0o755)
    for folder, folders, _ in os.walk(root, topdown=False):
        for name in folders:
            (Path(folder) / name).chmod(0o555)


def profiles_in(root: Path) -> Path:
    """Where the profiles of a source are: in its folder `profiles`, as in any project, else in `root` itself."""
    inside = root / "profiles"
    return inside if inside.is_dir() else root
