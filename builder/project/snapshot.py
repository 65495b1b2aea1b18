"""The files that profiles are made of, as they were when they were first asked for: read, parsed and checked once.

What is rendered, what is locked and what is remembered of an evaluation are then of the same bytes, whoever writes
into a file meanwhile.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import ProfileError, Where
from builder.files import display, is_there, not_utf8, read_regular

if TYPE_CHECKING:
    from builder.lock.model import Lock
    from builder.profile.load import Part

Seen = dict[Path, bytes | None]
"""Files by their absolute paths, with their bytes; None for one that was looked for in vain."""


class Snapshot:
    """Files, parts of profiles and locks by their paths."""

    def __init__(self, contents: Seen | None = None) -> None:
        """`contents` are files as they are going to be."""
        self._contents: Seen = dict(contents or {})
        self._parts: dict[Path, Part] = {}
        self._locks: dict[Path, Lock] = {}

    def content(self, path: Path, seen: Seen) -> bytes | None:
        """What a file had when it was first asked for; None where it was no file. `seen` gets it too.

        Raises ProfileError where it cannot be read.
        """
        if path not in self._contents:
            self._contents[path] = _read(path)
        seen[path] = self._contents[path]
        return seen[path]

    def text(self, path: Path, seen: Seen) -> str:
        """The same of a file that is there, as text. Raises ProfileError."""
        content = self.content(path, seen)
        if content is None:
            raise ProfileError("it does not exist", where=Where(display(path)))
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            where = Where(display(path), line)
            raise ProfileError(not_utf8(content), hint="save the file as UTF-8", where=where) from None

    def part(self, path: Path, scope: str, seen: Seen) -> Part:
        """The file of a profile, whose name it has; see builder.profile.source for the `scope`. Raises ProfileError."""
        from builder.profile.load import read_part
        from builder.profile.source import Source

        text = self.text(path, seen)
        if path not in self._parts:
            self._parts[path] = read_part(path.stem, Source(display(path), text, scope))
        return self._parts[path].within(scope)

    def lock(self, path: Path, seen: Seen) -> Lock | None:
        """A lock, unchecked against its profile; None where there is none. Raises LockError, and ProfileError."""
        from builder.lock.model import parse

        if self.content(path, seen) is None:
            return None
        if path not in self._locks:
            self._locks[path] = parse(self.text(path, seen), display(path), path.name.removesuffix(".lock.toml"))
        return self._locks[path]


def _read(path: Path) -> bytes | None:
    try:
        return read_regular(path) if is_there(path) else None
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", where=Where(display(path))) from None
