"""Checkpoints of a training on a fleet: which host has the newest, and how the others get it."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any

from builder.embedded.folders import is_below
from builder.errors import DrydockError
from builder.fleet.connection import LauncherVisit
from builder.fleet.members import Member
from builder.fleet.ssh import visit

_LOOK_SECONDS = 60.0
_COPY_SECONDS = 3600.0
_PIECE = 1 << 17

Request = Callable[[Member, str], Mapping[str, Any]]
"""What a member is asked for, without what is of one work alone: `do`."""


class Look(LauncherVisit):
    """Asks a host for its newest checkpoint, for its identity, and for files that it lacks."""

    def __init__(self, member: Member, request: Mapping[str, Any]) -> None:
        super().__init__(member, {**request, "code": resume_code()}, seconds=_LOOK_SECONDS)

    def read_answer(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if word == "newest":
            with suppress(ValueError, TypeError, RecursionError):
                step, changed, argument, path = json.loads(rest)
                if _is_below(path) and isinstance(argument, str) and argument.isprintable():
                    self.member.newest = ([float(step), float(changed)], argument, path)


class _Given(LauncherVisit):
    """Reads a checkpoint, in lines."""

    def __init__(self, member: Member, request: Mapping[str, Any], write: Callable[[bytes], Any]) -> None:
        super().__init__(member, request, seconds=_COPY_SECONDS)
        self.endless = True
        self._write = write

    def read_line(self, text: str) -> None:
        self.words.clear()
        self._write(text.encode("ascii", "replace") + b"\n")


def newest(members: Sequence[Member]) -> tuple[Member, list[Member]] | None:
    """The member that has the newest checkpoint of all, and those that lack it; None where nobody has one."""
    having = [(member.newest, member) for member in members if member.newest is not None]
    if not having:
        return None
    (age, _, path), best = max(having, key=lambda one: one[0][0])
    return best, [m for m in members if m.newest is None or (m.newest[0][0], m.newest[2]) != (age[0], path)]


def copy(best: Member, others: Sequence[Member], path: str, request: Request) -> None:
    """Bring a checkpoint that a host has to others. Raises DrydockError."""
    with tempfile.TemporaryFile(prefix="drydock-fleet-") as kept:
        given = _Given(best, {**request(best, "give"), "path": path}, kept.write)
        visit([given])
        if given.code != 0:
            raise DrydockError(f"{path} cannot be read on {best.host}: {given.failure()}")
        kept.flush()
        size = kept.tell()
        number = kept.fileno()

        def content() -> Iterator[bytes]:
            for start in range(0, size, _PIECE):
                yield os.pread(number, _PIECE, start)
            yield b".\n"

        what = {"path": path, "command": secrets.token_hex(8)}
        taken = [LauncherVisit(m, {**request(m, "take"), **what}, content(), seconds=_COPY_SECONDS) for m in others]
        visit(taken)
    for one in taken:
        if one.code != 0:
            raise DrydockError(f"{path} cannot be written on {one.host}: {one.failure()}")


def resume_code() -> str:
    """What a host needs to find its newest checkpoint."""
    return files("builder.embedded").joinpath("resume.py").read_text(encoding="utf-8")


def _is_below(path: object) -> bool:
    return isinstance(path, str) and path.isprintable() and not path.startswith("-") and is_below(path)
