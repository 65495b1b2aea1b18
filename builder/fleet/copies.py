"""Wheels that are unpacked at the desk, for hosts of the same platform and series of Python: sent as they lie here.

Unpacking and compiling a large closure takes a host more time than anything else of a build (PyTorch: 45 s of a
processor of a build's 50); files that are linked into an environment as they come take none of it. The host looks at
each as at a wheel of its own: builder/fleet/adopt.py.
"""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from builder.embedded import wheels
from builder.embedded.bytecode import place_of
from builder.embedded.installed import read_record
from builder.fleet.facts import Host
from builder.fleet.parcel import Subject
from builder.machine import Machine
from builder.share.mirror.locked import LockedFile
from builder.store.layout import Store

LEAST = 10_000_000
"""Bytes of wheels from which a copy pays: it moves some four times as much, and saves the work of unpacking."""

AT_ONCE = 2
"""With how many hosts a copy pays on a network of 1 Gbit/s, which the desk shares out among them. Of 220 MB of wheels
it moves 663 MB more, and saves a host 14 s of its processor (`just bench-copy`): 47 MB/s for each host."""


@dataclass(frozen=True)
class Copy:
    """An unpacked wheel: what it is called, and its package."""

    identity: str
    name: str
    wheel: wheels.Wheel


def copies(what: Subject, lacking: Sequence[LockedFile], host: Host, send: str, hosts: int) -> dict[LockedFile, Copy]:
    """Of the files that a host lacks, those that it can have as a copy, where that pays; none where it does not.

    `send` is that of the fleet, and there are so many `hosts` in this deployment.
    """
    if send == "wheels" or (not send and hosts > AT_ONCE):
        return {}
    if what.platform != _here() or what.series not in host.pythons:
        return {}
    folder = Store.here().wheels / what.tag
    found: dict[LockedFile, Copy] = {}
    for file in lacking:
        identity = what.identity(file)
        if identity is not None and file.file.endswith(".whl") and identity[:16] not in host.wheels.get(what.tag, ()):
            wheel = _known(folder, identity, file.name)
            if wheel is not None:
                found[file] = Copy(identity, file.name, wheel)
    return found if sum(file.size for file in found) >= LEAST else {}


_known = cache(wheels.known)  # fifty hosts ask for the same


def members(some: Sequence[Copy], tag: str) -> tuple[list[tuple[str, bytes | Path]], list[tuple[Path, int]]]:
    """What is sent of them: all that a host needs to take them over, and the files that follow, with their sizes."""
    shared = Store.here().bytecode / tag
    raw: list[tuple[Path, int]] = []
    compiled: dict[str, int] = {}
    for digest in dict.fromkeys(digest for one in some for digest in _sources(one.wheel)):
        path = shared / digest[:2] / f"{digest[2:]}.pyc"
        if path.is_file():
            compiled[digest] = path.stat().st_size
            raw.append((path, compiled[digest]))
    rows = []
    for one in some:
        files: list[tuple[str, int, bool]] = []
        paths = list(_paths(one.wheel))
        ours = {place_of(path, tag) for path in paths if path.endswith(".py")}
        for path in sorted(one.wheel.path / path for path in paths if path not in ours):
            state = path.stat()
            raw.append((path, state.st_size))
            files.append((str(path.relative_to(one.wheel.path)), state.st_size, bool(state.st_mode & 0o100)))
        rows.append({"identity": one.identity, "name": one.name, "own": one.wheel.own, "files": files})
    asked = json.dumps({"tag": tag, "bytecode": compiled, "wheels": rows}).encode()
    return [*_machinery(), ("asked.json", asked)], raw


def _paths(wheel: wheels.Wheel) -> Iterator[str]:
    for folder, (names, _) in wheel.files.items():
        for name in names.split("/"):
            yield f"{folder}/{name}" if folder else name


def _sources(wheel: wheels.Wheel) -> Iterator[str]:
    """The sha256 of each module."""
    for info in wheel.path.glob("lib/python*/site-packages/*.dist-info"):
        for row in read_record(info):
            if len(row) > 1 and row[0].endswith(".py") and row[1].startswith("sha256="):
                yield base64.urlsafe_b64decode(row[1].removeprefix("sha256=") + "=").hex()


def code() -> str:
    """What takes them over on a host."""
    return files("builder.fleet").joinpath("adopt.py").read_text(encoding="utf-8")


@cache
def _machinery() -> Sequence[tuple[str, bytes]]:
    from builder.script.machinery import machinery_files

    return [(path, text.encode()) for path, text in machinery_files(()).items() if path.startswith("builder/")]


@cache
def _here() -> str | None:
    """The platform of the desk."""
    return Machine(system=platform.system(), machine=platform.machine()).platform
