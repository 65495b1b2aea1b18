"""Checks of the resources of a build: disk, a Python, the clock. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from builder.check.doctor.diagnosis import Diagnosis, State
from builder.embedded import interpreter
from builder.embedded.errors import StageError
from builder.embedded.place import Lack
from builder.errors import DrydockError
from builder.lock.outline import Outline, Package, Target
from builder.lock.sizes import BYTECODE, UNPACKED
from builder.lock.sizes import size as told


@dataclass(frozen=True)
class Place:
    """A folder to write to, which may not exist yet: its device, and the free bytes there."""

    path: Path
    device: int
    free: int


def store(folder: Path | None, problem: DrydockError | None, *, writable: bool, built: bool) -> Diagnosis:
    """Whether there is a place for environments, else `problem` says why; what is built may be in a read-only one."""
    if problem is not None:
        return Diagnosis("store", "fail", problem.message, "", problem.hint or "set DRYDOCK_HOME")
    if writable:
        return Diagnosis("store", "ok", str(folder))
    if built:
        return Diagnosis("store", "ok", f"{folder}, read-only, which is enough for what is built")
    return Diagnosis("store", "fail", f"{folder} cannot be written", "", "set DRYDOCK_HOME to a folder of your own")


def place(folder: Path | None, lacks: Sequence[Lack], *, folds: bool, clash: StageError | None) -> Iterator[Diagnosis]:
    """What the place of the store must be able to do for environments to be in it, and cannot.

    `folds` says whether it does not tell the case of letters apart, `clash` which locked files are one file there.
    """
    if clash is not None:
        yield Diagnosis("place of the store", "fail", f"{folder}: {clash}", "", clash.hint)
        return
    for lack in lacks:
        yield Diagnosis("place of the store", "fail", f"{folder}: {lack.what}", "", lack.hint)
    if folder is not None and not lacks:
        text = "links, programs, renames and long names work there"
        case = (
            "; upper and lower case are the same there, which no locked file minds that was unpacked" if folds else ""
        )
        yield Diagnosis("place of the store", "ok", text + case)


def cache(folder: Path | None, *, writable: bool) -> Diagnosis | None:
    """Whether uv can write to its cache, where it is to build."""
    if folder is None or writable:
        return None
    fix = "name a folder of your own: UV_CACHE_DIR; it may have been made with sudo"
    return Diagnosis("uv's cache", "fail", f"{folder} cannot be written", "", fix)


def disk(download: int, store: Place | None, cache: Place | None, *, built: bool, linked: bool) -> Iterator[Diagnosis]:
    """Whether the download, and the environment, fit; `download` in bytes, `linked` where uv links out of its cache.

    uv unpacks into its cache, and links from there into a store on the same device; else it copies.
    """
    if built:
        free = f"{told(store.free)} free" if store is not None else "unknown"
        yield Diagnosis("disk", "ok", f"{free}; nothing is needed, it is built")
        return
    if store is None:
        yield Diagnosis("disk", "skipped", "the folder of the store cannot be examined")
        return
    together = cache is None or cache.device == store.device
    shared = together and linked
    parts = UNPACKED + BYTECODE + (UNPACKED if together and not linked else 0)
    if together:
        yield _fits("disk", store, download * (1 if shared else 2), round(download * parts), download)
        return
    yield _fits("disk of the store", store, download, round(download * (UNPACKED + BYTECODE)), download)
    if cache is not None:
        yield _fits("disk of uv's cache", cache, download, round(download * UNPACKED), download)


def _fits(what: str, place: Place, least: int, probably: int, download: int) -> Diagnosis:
    """`least` is less than what is needed for certain, `probably` what other profiles came to."""
    found = f"{told(place.free)} free at {place.path}"
    wanted = f"{told(download)} to download at most, about {told(probably)} if it unpacks as the profile cpu does"
    fix = "free some space (drydock store gc, uv cache prune), or name another disk: DRYDOCK_HOME, UV_CACHE_DIR"
    state: State = "fail" if place.free < least else "warn" if place.free < probably else "ok"
    return Diagnosis(what, state, found, wanted, fix if state != "ok" else "")


@dataclass(frozen=True)
class Interpreter:
    """The Python that an environment has been built on, or that a build takes; `path` is None where uv finds none.

    `chosen` says by whom it was, `named` is DRYDOCK_PYTHON. `head` are the first bytes of its file; `managed` says that
    its installation is marked as the system's (PEP 668), `downloads` that uv may fetch one. `built` is the version that
    an environment was built on, and `missing` what it was compiled without.
    """

    path: Path | None
    chosen: str
    version: str | None = None
    head: bytes = b""
    managed: bool = False
    named: str | None = None
    downloads: bool = True
    built: str | None = None
    missing: Sequence[str] = ()


def python(version: str, target: Target, found: Interpreter | None) -> Diagnosis:
    """Whether there is a Python to build with: `version`, or a release of it. `found` is None where uv is silent."""
    if found is None:
        return Diagnosis("Python", "skipped", "uv does not answer")
    wanted = f"{version}, for {target.machine}"
    series = ".".join(version.split(".")[:2])
    install = f"install Python {version} for {target.machine}, or name one: DRYDOCK_PYTHON=/path/to/python{series}"
    if found.path is None:
        if found.downloads and found.named is None:
            return Diagnosis("Python", "warn", "none here: uv will download one", wanted, f"or {install}")
        where = f"DRYDOCK_PYTHON={found.named} is not a Python" if found.named is not None else "none here"
        return Diagnosis("Python", "fail", where, wanted, install)
    text = f"{found.version or 'unknown version'} at {found.path}, {found.chosen}"
    parts = (found.version or version).split(".")
    if any(one != other for one, other in zip(parts, version.split("."), strict=False)):
        return Diagnosis("Python", "fail", text, wanted, install)
    machines = machines_of(found.head)
    if machines and target.machine not in machines:
        return Diagnosis("Python", "fail", f"{text}, for {', '.join(machines)}", wanted, install)
    if found.managed:
        text += "; the system's (PEP 668), into which nothing is installed"
    fix = []
    if found.built not in (None, found.version):
        text += f", where it was {found.built}"
        fix.append(f'drydock verify says whether all is well; [python] version = "{found.built}" keeps to one release')
    if found.missing:
        text += f"; it lacks {', '.join(found.missing)}"
        fix.append(interpreter.remedy(series))
    if fix:
        return Diagnosis("Python", "warn", text, "", "; ".join(fix))
    return Diagnosis("Python", "ok", text)


def standalone(locked: Package, place: Path | None, found: Interpreter | None) -> Diagnosis:
    """Whether the Python that the lock names is there, at `place`; `found` is the one below what is built."""
    release = locked.version.partition("+")[0]
    if place is None:
        words = f"{release}, {locked.file}, is fetched by the build: {told(locked.size)}"
        return Diagnosis("Python", "ok", words)
    if found is not None and found.path is not None and not found.path.is_relative_to(place.resolve()):
        return Diagnosis("Python", "fail", f"the environment runs {found.path}", f"{release}, at {place}")
    return Diagnosis("Python", "ok", f"{release}, {locked.file}, at {place}")


_MACHO = {0x01000007: "x86_64", 0x0100000C: "arm64"}  # CPU_TYPE_X86_64 and _ARM64, mach/machine.h
_ELF = {62: "x86_64", 183: "aarch64"}  # EM_X86_64 and EM_AARCH64, elf.h


def machines_of(head: bytes) -> list[str]:
    """Return the processors of a program, from its first bytes; empty for anything else.

    >>> machines_of(bytes.fromhex("cffaedfe0c000001")), machines_of(b"#!/bin/sh\\n")
    (['arm64'], [])
    """
    if head.startswith(b"\xcf\xfa\xed\xfe"):
        kinds = [_MACHO.get(int.from_bytes(head[4:8], "little"))]
    elif head.startswith(b"\xca\xfe\xba\xbe"):  # universal: fat_header, then a fat_arch of 20 bytes for each
        count = min(int.from_bytes(head[4:8], "big"), 8)
        kinds = [_MACHO.get(int.from_bytes(head[at : at + 4], "big")) for at in range(8, 8 + 20 * count, 20)]
    elif head.startswith(b"\x7fELF\x02\x01"):
        kinds = [_ELF.get(int.from_bytes(head[18:20], "little"))]
    else:
        kinds = []
    return [kind for kind in kinds if kind is not None]


def clock(profile: Outline, made: Mapping[str, datetime], now: datetime) -> Diagnosis:
    """Whether the clock is later than all that was made before now; `made` has the times of files."""
    found = f"{now:%Y-%m-%d %H:%M} UTC"
    fix = "set the clock: certificates, and so downloads, go by it"
    later = {what: time for what, time in made.items() if time > now}
    if later:
        what, time = max(later.items(), key=lambda one: one[1])
        # A file may come from a machine whose clock is a little ahead; a day is no such difference.
        state: State = "fail" if (time - now).days >= 1 else "warn"
        return Diagnosis("clock", state, found, f"later than {what}: {time:%Y-%m-%d %H:%M} UTC", fix)
    newest = date.fromisoformat(profile.newest) if profile.newest is not None else None
    if newest is not None and newest > now.date():
        wanted = f"later than {newest}, the day as of which the profile is locked (exclude-newer)"
        return Diagnosis("clock", "warn", found, wanted, fix)
    return Diagnosis("clock", "ok", found)
