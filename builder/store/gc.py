"""Collect what nothing needs: environments without a root, stages of dead builds, bytecode that nothing links."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from builder import process
from builder.embedded import claim
from builder.embedded.errors import StageError
from builder.embedded.wheels import identity
from builder.files import remove_tree
from builder.report import plural
from builder.store import roots
from builder.store.layout import Store
from builder.store.usage import Links


@dataclass(frozen=True)
class Garbage:
    """Something to delete: its path, why, and the bytes on disk that only it holds."""

    path: Path
    why: str
    size: int


def collect(*, dry_run: bool = False, max_age: float | None = None, max_size: int | None = None) -> list[Garbage]:
    """Delete what nothing needs, and give what was deleted (or would be).

    `max_age` in seconds keeps what was used more recently; `max_size` in bytes stops as soon as the environments take
    no more than that. What a build, a trainer, a generation or a script needs is never taken, also where it begins
    while this runs: see `builder.store.roots`.
    """
    if dry_run:
        return list(_sized(_choose(max_age, max_size)))
    store = Store.here()
    trash = store.environments / f".trash-{time.time_ns()}"
    with roots.collecting():
        chosen = list(_sized(_choose(max_age, max_size)))
        # Choosing from a large store takes its time, and who waits for it does not wait for ever.
        needed = roots.roots()
        taken = [one for one in chosen if one.path.name not in needed]
        for number, one in enumerate(taken):
            if not one.path.is_dir():
                one.path.unlink(missing_ok=True)
                continue
            trash.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # a build removes the stages of dead builds, too
                one.path.chmod(0o755)  # a folder that is moved must be writable, on some systems
                one.path.rename(trash / str(number))
                one.path.with_name(f"{one.path.name}.json").unlink(missing_ok=True)  # the note of a wheel
    # Out of sight already; deleting many files takes its time.
    for left in store.environments.glob(".trash-*"):
        remove_tree(left)
    return [*taken, *_leftovers()]


def _choose(max_age: float | None, max_size: int | None) -> Iterator[tuple[Path, str]]:
    if max_size is None:
        yield from _sources(max_age)
    yield from _environments(max_age, max_size)


def _environments(max_age: float | None, max_size: int | None) -> Iterator[tuple[Path, str]]:
    store = Store.here()
    yield from _dead(store)
    needed = roots.roots()
    gone: set[str] = set()
    every = [store.path(name) for name in store.names()]
    newest_first = sorted(
        (path for path in every if path.name not in needed), key=lambda path: path.stat().st_mtime, reverse=True
    )
    total = Links().add(every) if max_size is not None else 0
    while newest_first:
        path = newest_first.pop()
        if max_age is not None and time.time() - path.stat().st_mtime < max_age:
            continue
        if max_size is not None:
            if total <= max_size:
                return
            total -= Links().add([path])
        gone.add(path.name)
        yield path, "nothing needs it"
    if max_size is None:
        yield from _wheels(store, gone, max_age)


def _dead(store: Store) -> Iterator[tuple[Path, str]]:
    """What processes left that died while they made it."""
    for path in sorted((store.home / "tools").glob(".new-*")):
        if not process.has_living_maker(path.name):
            yield path, "its download was killed"
    places = [(store.environments, ".stage-"), *((one, ".new-") for one in store.wheels.glob("*"))]
    for folder, prefix in places:
        yield from ((path, "its build was killed") for path in claim.dead(folder, prefix))


def _wheels(store: Store, gone: set[str], max_age: float | None) -> Iterator[tuple[Path, str]]:
    """The unpacked wheels that no environment has, but those that are `gone`; a new one may be about to be linked."""
    notes = list(store.wheels.glob("*/*.json"))
    if not notes:
        return
    needed: set[tuple[str, str]] = set()
    for name in store.names():
        if name in gone:
            continue
        with suppress(StageError, KeyError, TypeError):
            manifest = store.manifest(name)
            plan = manifest["plan"]
            needed |= {(manifest["cache-tag"], identity(one, plan["build-requires"])) for one in plan["packages"]}
    for note in sorted(notes):
        old = time.time() - note.lstat().st_mtime > max(max_age or 0, 3600)
        if old and not note.name.startswith(".") and (note.parent.name, note.stem) not in needed:
            yield note.with_suffix(""), "no environment has this wheel"


def _sources(max_age: float | None) -> Iterator[tuple[Path, str]]:
    """Fetched sources that no lock file refers to, and what a dead process was fetching."""
    folder = Store.here().home / "sources"
    needed = roots.sources()
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(".new-"):
            if claim.is_dead(path):
                yield path, "its download was killed"
        # One that came a moment ago belongs to a lock that is about to be written.
        elif path.name not in needed and time.time() - path.lstat().st_mtime > max(max_age or 0, 60):
            yield path, "no lock file refers to this source"


def _sized(chosen: Iterator[tuple[Path, str]]) -> Iterator[Garbage]:
    links = Links()
    for path, why in chosen:
        links.add([path])
        yield Garbage(path, why, links.freed())


def _leftovers() -> list[Garbage]:
    """Delete the shared bytecode that no environment links any more, and files that were never finished."""
    store = Store.here()
    gone: list[Garbage] = []
    for lock in store.environments.glob(f"{claim.LOCK}*"):
        claim.forget(lock.parent, lock.name.removeprefix(claim.LOCK))
    found = [(path, "no environment links this bytecode") for path in store.bytecode.glob("*/*/*")]
    unfinished = [*(store.home / "cache").rglob(".*"), *store.roots.glob(".*")]
    found += [(path, "its writer was killed") for path in unfinished]
    for path, why in found:
        with suppress(FileNotFoundError):  # another collection was faster
            state = path.stat()
            # A build may have written it a moment ago, and link or rename it in the next.
            if state.st_nlink == 1 and time.time() - state.st_mtime > 3600:
                path.unlink()
                gone.append(Garbage(path, why, state.st_blocks * 512))
    return gone


def parse_age(text: str) -> float:
    """Seconds in an age such as `30d`, `12h` or `45m`. Raises ValueError."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None:
        raise ValueError("an age is a number and one of s, m, h, d: 30d")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def parse_size(text: str) -> int:
    """Bytes in a size such as `20G`, `500M` or `1024`. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text, re.IGNORECASE)
    if found is None:
        raise ValueError("a size is a number and one of K, M, G, T: 20G")
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " "))


def summary(deleted: Sequence[Garbage]) -> str:
    """What was freed, in a sentence."""
    total = sum(one.size for one in deleted)
    return f"{plural(len(deleted), 'path')}, {total / 1e6:.1f} MB"
