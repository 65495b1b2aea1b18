"""Files of the project that come along to the hosts of a fleet, before a trainer starts there: `bring` of the fleet.

The code of a trainer, and small data beside it, as they are now. Each host says which of them it does not have as they
are here, and gets those; what was brought before and is not any more is deleted there, where nobody has changed it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from builder.embedded.words import plural
from builder.errors import UsageError
from builder.files import hash_of
from builder.fleet.connection import LauncherVisit
from builder.fleet.members import Member
from builder.fleet.ssh import Visit, visit
from builder.lock import sizes
from builder.project.catalogue import Catalogue
from builder.project.fleets import Fleet
from builder.report import Reporter
from builder.run.records.code import PRIVATE

MOST = 1 << 30
"""Bytes that are brought; what is larger is for [data], which comes once and by its hash."""
_FILES = 20_000
_SKIPPED = frozenset({".git", ".hg", "__pycache__", ".venv", ".ipynb_checkpoints"})
_BLOCK = 48_000
SECONDS = 3600.0


@dataclass(frozen=True)
class Files:
    """What is brought: paths below `root`, each with its size, sha256, and whether it can be executed."""

    root: Path
    rows: Sequence[tuple[str, int, str, bool]]
    command: str = field(default_factory=lambda: secrets.token_hex(8))
    """The command that brings them, to hosts that may share a folder."""

    @property
    def digest(self) -> str:
        """One for all of it."""
        return hashlib.sha256(json.dumps(self.rows).encode()).hexdigest()


def chosen(fleet: Fleet, report: Reporter) -> Files | None:
    """The files that a fleet is to bring; None where it says none. Raises UsageError."""
    if not fleet.bring:
        return None
    every = {file.relative_to(fleet.root).as_posix(): file for path in _matching(fleet) for file in _below(path)}
    private = [name for name, file in every.items() if PRIVATE.fullmatch(name)]
    links = [name for name, file in every.items() if not file.resolve().is_relative_to(fleet.root.resolve())]
    found = {name: file for name, file in every.items() if name not in {*private, *links}}
    for names, why in ((private, "named like a secret"), (links, "a link out of the project")):
        if names:
            report.warn(f"{names[0]}{_more(names)} is {why}, and stays here")
    size = sum(path.stat().st_size for path in found.values())
    if len(found) > _FILES or size > MOST:
        raise UsageError(
            f"{plural(len(found), 'file')} of {size / 1e6:.0f} MB are too much to bring before each run",
            hint="large data is for [data] of the profile, which comes to each host once",
        )
    return Files(fleet.root, [_row(name, path) for name, path in sorted(found.items())])


def _matching(fleet: Fleet) -> Iterator[Path]:
    for pattern in fleet.bring:
        paths = sorted(fleet.root.glob(pattern))
        if not paths:
            raise UsageError(f"nothing matches {pattern}, which {fleet.name} is to bring, in {fleet.root}")
        yield from paths


def _more(names: Sequence[str]) -> str:
    return f", as {plural(len(names) - 1, 'other file')}," if len(names) > 1 else ""


def _below(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir() and not path.is_symlink() and path.name not in _SKIPPED:
        for inside in sorted(path.iterdir()):
            yield from _below(inside)


def _row(name: str, path: Path) -> tuple[str, int, str, bool]:
    state = path.stat()
    return name, state.st_size, hash_of(path), bool(state.st_mode & 0o100)


class Brought(LauncherVisit):
    """Asks a host which files it does not have as they are here; where it lacks some, those follow."""

    def __init__(
        self, member: Member, files: Files, now: Callable[[str, int], None], lacking: Sequence[int] | None = None
    ) -> None:
        self._files, self._now, self._lacking = files, now, lacking
        do = "compare" if lacking is None else "bring"
        request = {"do": do, "folder": member.folder, "files": files.rows, "lacking": lacking}
        request["command"] = files.command
        super().__init__(member, request, () if lacking is None else _sent(files, lacking), seconds=SECONDS)

    def follow(self) -> Sequence[Visit]:
        if self.code != 0 or self._lacking is not None:
            return ()
        try:
            lacking = [int(word) for row in self.values("lacks") for word in row.split()]
            wanted = [self._files.rows[number] for number in lacking if number >= 0]
        except (ValueError, IndexError):
            return ()
        if not lacking:  # -1 stands for what is to be deleted
            return ()
        self._now(self.host, sum(size for _, size, *_ in wanted))
        following = Brought(self.member, self._files, self._now, [number for number in lacking if number >= 0])
        self.next = following
        return [following]

    next: Visit | None = None
    """The visit that has brought what was lacking."""

    @property
    def failed(self) -> str:
        """Why they are not there; "" where they are."""
        last = self.next or self
        return "" if last.code == 0 and (last.values("compared") or last.values("brought")) else last.failure()


def _sent(files: Files, lacking: Sequence[int]) -> Iterator[bytes]:
    """The files as a tar, in lines of base64."""
    rest = b""
    for number in lacking:
        name, size, _, is_program = files.rows[number]
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o755 if is_program else 0o644
        rest += member.tobuf(tarfile.GNU_FORMAT)
        left = size
        with (files.root / name).open("rb", buffering=0) as file:
            while left and (block := file.read(min(1 << 17, left))):
                left -= len(block)
                rest += block
                whole = len(rest) - len(rest) % _BLOCK
                yield from _lines(rest[:whole])
                rest = rest[whole:]
        rest += bytes(left + -size % 512)  # one that was cut meanwhile is seen by its hash
    yield from _lines(rest + bytes(1024))
    yield b".\n"


def _lines(content: bytes) -> Iterator[bytes]:
    for at in range(0, len(content), _BLOCK):
        yield base64.b64encode(content[at : at + _BLOCK]) + b"\n"


def bring(files: Files, members: Sequence[Member], report: Reporter) -> dict[str, str]:
    """Have the files of the project on some hosts, as they are now; returns why they are not on which host."""

    def now(host: str, size: int) -> None:
        report.step(f"{host} gets {sizes.size(size)} of {plural(len(files.rows), 'file')} from here")

    visits = [Brought(member, files, now) for member in members]
    visit(visits)
    return {one.host: f"the files from here did not come: {one.failed}" for one in visits if one.failed}


def needed(name: str, fleet: Fleet, catalogue: Catalogue) -> list[str]:
    """The files of the project here that the command of a trainer names, where nothing else brings them."""
    trainer = catalogue.profile(name).trainer
    if trainer.source is not None or not fleet.root.is_absolute():
        return []
    words = [word for word in trainer.command or () if word.endswith((".py", ".sh")) and not word.startswith("/")]
    return [word for word in words if (fleet.root / word).is_file()]
