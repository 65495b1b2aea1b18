"""What is kept in Drydock's own folder only to be quicker, or to do without a network: measured, and removed.

Environments, and what they share with each other, are for the garbage collection (builder/store/gc.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from builder.errors import UsageError
from builder.names import meant
from builder.store import roots
from builder.store.layout import Store
from builder.store.usage import Links

_YOUNG = 60.0  # seconds: what is younger may be about to be used


class Cache(NamedTuple):
    """A part of what is cached: its folders below Drydock's own, and what it is for."""

    name: str
    folders: tuple[str, ...]
    what: str
    is_precious: bool = False
    """Whether it is removed only where it is named: it may not be there to be fetched again."""


CACHES = (
    Cache(
        "evaluations",
        ("cache/evaluations", "cache/carried", "cache/scripts", "cache/frames"),
        "profiles as evaluated; made again when needed",
    ),
    Cache("tools", ("tools",), "the uv that scripts have fetched; fetched again when it is needed"),
    Cache("mirror", ("cache/mirror",), "files of locks, pulled to build without a network: drydock pull", True),
)
COLLECTED = (
    Cache("wheels", ("wheels",), "unpacked, linked into environments: drydock store gc"),
    Cache("bytecode", ("bytecode",), "compiled, linked into environments: drydock store gc"),
    Cache("built", ("cache/built",), "wheels that were built here: drydock store gc"),
    Cache("pythons", ("pythons",), "Pythons that locks name: drydock store gc"),
    Cache("sources", ("sources",), "fetched sources of profiles: drydock store gc"),
)


class Removed(NamedTuple):
    """What was removed of a cache, or would be: files, and bytes on disk that this frees."""

    cache: Cache
    files: int
    size: int


def sizes() -> list[tuple[Cache, int]]:
    """Each cache that has something in it, with its bytes on disk; a file that two have counts for the first."""
    home, links = Store.here().home, Links()
    found = [(cache, links.add(home / folder for folder in cache.folders)) for cache in (*CACHES, *COLLECTED)]
    return [(cache, size) for cache, size in found if size]


def clean(names: Sequence[str] = (), *, dry_run: bool = False) -> tuple[list[Removed], list[Path]]:
    """Remove what is in the caches `names`, or in all that can be fetched or made again.

    What is a minute old, or somebody else's, stays, and the uv of scripts while one of them runs. Returns what was
    removed, and what could not be. Raises UsageError for an unknown name.
    """
    known = {cache.name: cache for cache in CACHES}
    for name in names:
        if name not in known:
            raise _unknown(name, known)
    chosen = [known[name] for name in names] or [cache for cache in CACHES if not cache.is_precious]
    store = Store.here()
    if not store.home.is_dir():
        return [], []
    kept: list[Path] = []
    if dry_run:
        return [_remove(store.home, cache, kept, dry_run=True) for cache in chosen], []
    with roots.collecting():
        if roots.running():
            chosen = [cache for cache in chosen if cache.name != "tools"]
        return [_remove(store.home, cache, kept, dry_run=False) for cache in chosen], kept


def _unknown(name: str, known: dict[str, Cache]) -> UsageError:
    if name in {cache.name for cache in COLLECTED}:
        return UsageError(f"{name} are removed when no environment needs them", hint="drydock store gc")
    return UsageError(f'no cache "{name}"', hint=meant(name, known) or f"caches: {', '.join(known)}")


def _remove(home: Path, cache: Cache, kept: list[Path], *, dry_run: bool) -> Removed:
    files = size = 0
    for folder in cache.folders:
        paths = sorted((home / folder).rglob("*"), reverse=True)
        for path in paths:
            try:
                state = path.lstat()
                if path.is_dir() and not path.is_symlink():
                    if not dry_run:
                        with suppress(OSError):  # something stays in it
                            path.rmdir()
                    continue
                if time.time() - state.st_ctime < _YOUNG and not cache.is_precious:
                    continue
                if not dry_run:
                    path.unlink()
                files, size = files + 1, size + (state.st_blocks * 512 if state.st_nlink == 1 else 0)
            except FileNotFoundError:
                continue
            except OSError:
                kept.append(path)
    return Removed(cache, files, size)
