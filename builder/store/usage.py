"""How much the store takes: apparent and real, a hard link counted once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from builder.store.layout import Store


@dataclass
class Links:
    """Counts files by inode over several folders."""

    seen: dict[tuple[int, int], tuple[int, int, int]] = field(default_factory=dict)
    """Device and inode to: links found here, links in all, bytes on disk."""
    told: int = 0

    def add(self, paths: Iterable[Path]) -> int:
        """Count what is under `paths`; gives the bytes on disk of files not met before."""
        new = 0
        for path in paths:
            for entry in _walk(str(path)):
                try:
                    state = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                inode = (state.st_dev, state.st_ino)
                size = state.st_blocks * 512
                links, _, _ = self.seen.get(inode, (0, 0, 0))
                if not links:
                    new += size
                self.seen[inode] = (links + 1, state.st_nlink, size)
        return new

    def freed(self) -> int:
        """The bytes that deleting all that was counted would give back, less what was told by earlier calls."""
        total = sum(size for links, all_links, size in self.seen.values() if links >= all_links)
        new, self.told = total - self.told, total
        return new


@dataclass(frozen=True)
class Usage:
    """One environment: `apparent` bytes as if it were alone, `shared` those that others have too."""

    store_name: str
    files: int
    apparent: int
    own: int

    @property
    def shared(self) -> int:
        """Bytes that another environment, the bytecode or uv's cache holds too."""
        return self.apparent - self.own


@dataclass(frozen=True)
class Total:
    """The whole: `apparent` is the sum of all, `real` counts each file once."""

    environments: list[Usage]
    bytecode: int
    data: int
    apparent: int
    real: int


def usage() -> Total:
    """Measure the store."""
    store = Store.here()
    whole = Links()
    rows = []
    for name in store.names():
        alone = Links()
        apparent = alone.add([store.path(name)])
        whole.add([store.path(name)])
        rows.append(Usage(name, len(alone.seen), apparent, alone.freed()))
    shared = Links().add([store.bytecode])
    data = Links().add([store.data])
    whole.add([store.bytecode, store.wheels, store.pythons, store.built, store.data])
    real = sum(size for _, _, size in whole.seen.values())
    return Total(rows, shared, data, sum(row.apparent for row in rows), real)


def _walk(path: str) -> Iterable[os.DirEntry[str]]:
    """Every file, not through links; what vanishes meanwhile is left out."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    yield entry
    except (FileNotFoundError, NotADirectoryError):
        return
