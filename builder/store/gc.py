"""Collect what nothing needs: environments without a root, stages of dead builds, bytecode that nothing links."""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import process
from builder.embedded import claim, state
from builder.embedded.errors import StageError
from builder.embedded.folders import remove_path, take_away
from builder.embedded.wheels import identity
from builder.embedded.words import plural
from builder.files import is_beside, make_folder, owner
from builder.names import SOURCE_END
from builder.store import generations, roots
from builder.store.layout import Store
from builder.store.usage import Links


@dataclass(frozen=True)
class Garbage:
    """Something to delete: its path, why, and the bytes on disk that only it holds."""

    path: Path
    why: str
    size: int


@dataclass(frozen=True)
class Kept:
    """Something that nothing needs and that could not be deleted: whose it is, and what the system says."""

    path: Path
    owner: str
    why: str


@dataclass(frozen=True)
class Collection:
    """What was deleted (or would be), what could not be, and what lies in the store and is not Drydock's."""

    deleted: list[Garbage]
    kept: list[Kept]
    unknown: list[Path]


def collect(*, dry_run: bool = False, max_age: float | None = None, max_size: int | None = None) -> Collection:
    """Delete what nothing needs, as far as this user may.

    `max_age` in seconds keeps what was used more recently; `max_size` in bytes stops as soon as the environments take
    no more than that. What a build, a trainer, a generation or a script needs is never taken, also where it begins
    while this runs: see `builder.store.roots`.
    """
    store = Store.here()
    unknown = list(_unknown(store))
    if dry_run:
        return Collection(list(_sized(_choose(max_age, max_size))), [], unknown)
    taken: list[Garbage] = []
    kept: list[Kept] = []
    if store.home.is_dir():
        trash = store.environments / f".trash-{time.time_ns()}"
        with roots.collecting():
            chosen = list(_sized(_choose(max_age, max_size)))
            # Choosing from a large store takes its time, and who waits for it does not wait for ever.
            roots.renew_collecting()
            needed = roots.roots()
            for one in (one for one in chosen if one.path.name not in needed):
                try:
                    _take(one.path, trash)
                    taken.append(one)
                except OSError as error:
                    kept.append(_kept(one.path, error))
        # Out of sight already; deleting many files takes its time.
        for left in store.environments.glob(".trash-*"):
            try:
                remove_path(left)
            except OSError as error:
                kept.append(_kept(left, error))
        _leftovers(store, taken, kept)
    return Collection(taken, kept, unknown)


def _take(path: Path, trash: Path) -> None:
    """Put something out of sight. Raises OSError; what somebody else has taken meanwhile is no error."""
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
        make_folder(trash)
        take_away(path, trash / secrets.token_hex(8))
        path.with_name(f"{path.name}.json").unlink(missing_ok=True)  # the note of a wheel
    except FileNotFoundError:
        return


def _kept(path: Path, error: OSError) -> Kept:
    return Kept(path, owner(path), error.strerror or str(error))


_DAY = 86400.0  # seconds that a wheel built of a place stays for the lock that names it to be built

_DESKTOP = re.compile(r"\.DS_Store|\._.*|Thumbs\.db|desktop\.ini|\.directory|\.nfs.*")
"""What file managers and NFS put into every folder: not worth a word."""

_OURS = re.compile(r"\.(stage|trash|lock|claim)-.*")


def _unknown(store: Store) -> Iterator[Path]:
    known = set(store.names())
    there = store.environments.iterdir() if store.environments.is_dir() else ()
    for path in [*sorted(there), *roots.unknown(), *generations.unknown()]:
        of_store = path.parent == store.environments and (path.name in known or _OURS.fullmatch(path.name))
        if not of_store and not _DESKTOP.fullmatch(path.name):
            yield path


def _choose(max_age: float | None, max_size: int | None) -> Iterator[tuple[Path, str]]:
    if max_size is None:
        yield from _sources(max_age)
        yield from _projects()
    yield from _environments(max_age, max_size)


def _environments(max_age: float | None, max_size: int | None) -> Iterator[tuple[Path, str]]:
    store = Store.here()
    yield from _dead(store)
    needed = roots.roots()
    gone: set[str] = set()
    every = [store.path(name) for name in store.names()]
    newest_first = sorted((path for path in every if path.name not in needed), key=_changed, reverse=True)
    total = Links().add(every) if max_size is not None else 0
    while newest_first:
        path = newest_first.pop()
        if max_age is not None and time.time() - _changed(path) < max_age:
            continue
        if max_size is not None:
            if total <= max_size:
                return
            total -= Links().add([path])
        gone.add(path.name)
        yield path, "nothing needs it"
    if max_size is None:
        yield from _wheels(store, gone, max_age)
        yield from _pythons(store, gone, max_age)
        yield from _built(store, gone, max_age)
        yield from _data(store, max_age)


def _changed(path: Path) -> float:
    """When something changed; now, where it is gone meanwhile."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()


def _dead(store: Store) -> Iterator[tuple[Path, str]]:
    """What processes left that died while they made it."""
    for path in sorted((store.home / "tools").glob(".new-*")):
        named = re.fullmatch(r"\.new-(.+)-([0-9]+)", path.name)
        ours = named is not None and named[1] == os.uname().nodename
        if (ours and not process.has_living_maker(path.name)) or time.time() - _changed(path) > roots.LEASE:
            yield path, "its download was killed"
    kept = [*store.wheels.glob("*"), *store.built.glob("*")]
    places = [(store.environments, ".stage-"), *((one, ".new-") for one in (*kept, store.data / "views"))]
    for folder, prefix in places:
        yield from ((path, "its build was killed") for path in claim.dead(folder, prefix))


def _manifests(store: Store, gone: set[str]) -> Iterator[Mapping[str, Any]]:
    """Those that can be read, of the environments but those that are `gone`."""
    for name in store.names():
        if name not in gone:
            with suppress(StageError):
                yield store.manifest(name)


def _wheels(store: Store, gone: set[str], max_age: float | None) -> Iterator[tuple[Path, str]]:
    """The unpacked wheels that no environment has, but those that are `gone`; a new one may be about to be linked."""
    notes = list(store.wheels.glob("*/*.json"))
    if not notes:
        return
    needed: set[tuple[str, str]] = set()
    for manifest in _manifests(store, gone):
        with suppress(KeyError, TypeError):
            plan = manifest["plan"]
            needed |= {(manifest["cache-tag"], identity(one, plan["build-requires"])) for one in plan["packages"]}
    for note in sorted(notes):
        old = time.time() - _changed(note) > max(max_age or 0, 3600)
        if old and re.fullmatch(r"[0-9a-f]{64}", note.stem) and (note.parent.name, note.stem) not in needed:
            yield note.with_suffix(""), "no environment has this wheel"


def _pythons(store: Store, gone: set[str], max_age: float | None) -> Iterator[tuple[Path, str]]:
    """The Pythons that no environment is built on, but those that are `gone`; a new one may be about to be."""
    there = [path for path in sorted(store.pythons.glob("*")) if re.fullmatch(r"[0-9a-f]{64}", path.name)]
    needed: set[str] = set()
    for manifest in _manifests(store, gone) if there else ():
        with suppress(KeyError, TypeError):
            needed.add(manifest["plan"]["python-build"]["sha256"])
    for name in store.names() if there else ():
        if name not in gone:  # also of one whose manifest cannot be read
            needed.update(os.path.realpath(store.path(name) / "bin" / "python").split("/"))
    for path in there:
        if path.name not in needed and time.time() - _changed(path) > max(max_age or 0, 3600):
            yield path, "no environment is built on this Python"


def _built(store: Store, gone: set[str], max_age: float | None) -> Iterator[tuple[Path, str]]:
    """The wheels of places that no environment has, but those that are `gone`, and no lock; and trainers' own code
    that no script names. A new lock may be about to be built.
    """
    there = [path for path in sorted(store.built.glob("*")) if re.fullmatch(r"[0-9a-f]{64}", path.name)]
    needed = roots.sources() if there else set()
    for manifest in _manifests(store, gone) if there else ():
        with suppress(KeyError, TypeError):
            needed |= {one["sha256"] for one in manifest["plan"]["packages"]}
    old = [path for path in there if path.name not in needed and time.time() - _changed(path) > max(max_age or 0, _DAY)]
    named = _named_by_scripts() if old else set()
    for path in old:
        is_code = any(path.glob(f"*{SOURCE_END}"))
        if not (is_code and path.name in named):
            what = (
                "no script names this code of a trainer"
                if is_code
                else "no environment and no lock has this wheel, which was built here"
            )
            yield path, what


def _data(store: Store, max_age: float | None) -> Iterator[tuple[Path, str]]:
    """The models and data sets that no script names and no process of that profile may read, with their files; and
    fetches that nobody went on with. What is new belongs to a lock that is about to be built.
    """

    def old(path: Path) -> bool:
        return time.time() - _changed(path) > max(max_age or 0, _DAY)

    there = [path for path in sorted((store.data / "views").glob("*")) if re.fullmatch(r"[0-9a-f]{64}-.+", path.name)]
    chosen = [path for path in there if old(path)]
    named = _named_by_scripts() if chosen else set()
    running = {one.store_name.partition("-")[2] for one in roots.running()} if chosen else set()
    links: Counter[int] = Counter()
    for path in chosen:
        digest, _, name = path.name.partition("-")
        if digest not in named and name not in running:
            links.update(Path(top, one).lstat().st_ino for top, _, names in os.walk(path) for one in names)
            yield path, "no script names this data"
    for path in sorted((store.data / "files").glob("*")):
        with suppress(FileNotFoundError):
            if old(path) and path.lstat().st_nlink == 1 + links[path.lstat().st_ino]:
                yield path, "no script names this data"
    for path in sorted((store.data / "partial").glob("*")):
        if old(path):
            yield path, "its download was killed, and not begun again"


def _named_by_scripts() -> set[str]:
    """Each sha256 that stands in a script of a generation, or in one that was run and is still there."""
    scripts = [*(one.script for one in generations.every()), *(path for _, path in roots.scripts())]
    texts = (state.read_text(path, state.LARGE, follow=True) or "" for path in scripts)
    return {digest for text in texts for digest in re.findall(r"\b[0-9a-f]{64}\b", text)}


def _sources(max_age: float | None) -> Iterator[tuple[Path, str]]:
    """Fetched sources that no lock file refers to, and what a dead process was fetching."""
    folder = Store.here().home / "sources"
    needed = roots.sources()
    yield from ((path, "its download was killed") for path in claim.dead(folder, ".new-"))
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not re.fullmatch(r"[0-9a-f]{64}", path.name):
            continue
        # One that came a moment ago belongs to a lock that is about to be written.
        if path.name not in needed and time.time() - _changed(path) > max(max_age or 0, 60):
            yield path, "no lock file refers to this source"


def _projects() -> Iterator[tuple[Path, str]]:
    """The metadata and console scripts of projects that are old: a script writes them again, a process has none."""
    folder = Store.here().home / "projects"
    old = [path for path in sorted(folder.glob("*")) if time.time() - _changed(path) > roots.LEASE]
    if old and not roots.running():
        yield from ((path, "the next start writes it again") for path in old)


def _sized(chosen: Iterator[tuple[Path, str]]) -> Iterator[Garbage]:
    links = Links()
    for path, why in chosen:
        links.add([path])
        yield Garbage(path, why, links.freed())


def _leftovers(store: Store, taken: list[Garbage], kept: list[Kept]) -> None:
    """Delete the shared bytecode that no environment links any more, and files that were never finished."""
    for lock in store.environments.glob(f"{claim.LOCK}*"):
        claim.forget(lock.parent, lock.name.removeprefix(claim.LOCK))
    for note in store.environments.glob(f"{claim.CLAIM}*"):
        if time.time() - _changed(note) > claim.LEASE:
            with suppress(OSError):
                note.unlink()
    compiled = [path for path in store.bytecode.glob("*/*/*") if re.fullmatch(r".+\.pyc(\.[0-9a-f]+)?", path.name)]
    begun = [*(store.home / "cache").rglob(".*"), *store.roots.glob(".*"), *store.profiles.glob(".*")]
    begun += (store.home / "wheels").glob("*/.*")
    found = [(path, "no environment links this bytecode") for path in compiled]
    found += [(path, "its writer was killed") for path in begun if is_beside(path)]
    found += [(path, "its writer was killed") for path in generations.unfinished()]
    for path, why in found:
        try:
            state = path.lstat()
            # A build may have written it a moment ago, and link or rename it in the next.
            ours = stat.S_ISLNK(state.st_mode) or (stat.S_ISREG(state.st_mode) and state.st_nlink == 1)
            if ours and time.time() - state.st_mtime > 3600:
                path.unlink()
                taken.append(Garbage(path, why, state.st_blocks * 512))
        except FileNotFoundError:
            continue  # another collection was faster
        except OSError as error:
            kept.append(_kept(path, error))


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
