"""What a host is sent: the script, and the locked files that it lacks, as a mirror that its build looks into.

    script.gz       the run script, where the host does not have it
    uv.gz           the uv that the lock pins
    mirror/         the files (builder/share/mirror), with the pages of an index of these
    builder/, asked.json
                    what takes over wheels as they are unpacked here (copies.py), instead of those files
    end             nothing: what came before it is whole

A tar, and after it, where there is asked.json, the bytes of the files that this names, one after the other. It is all
made while it is sent: no host's parcel is ever a file, or in memory.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from builder.consent import Consent
from builder.embedded.wheels import identity
from builder.fleet.facts import Host
from builder.names import stem
from builder.project.catalogue import Catalogue
from builder.project.evaluate import evaluate
from builder.project.sources import consent
from builder.report import Reporter
from builder.share.bundle import put_uv
from builder.share.mirror import pages
from builder.share.mirror.fetch import Gatherer, local_mirror
from builder.share.mirror.locked import LockedFile, locked_files
from builder.share.mirror.transfer import bring

_BLOCK = 1 << 17
_TAR = 512


@dataclass
class Subject:
    """What is deployed of a profile: its script, and the files of its lock. `consent` was given at the desk."""

    name: str
    catalogue: Catalogue
    store_name: str
    script: bytes
    file: str
    consent: Consent
    platform: str
    series: str
    uv_version: str
    _rows: dict[str, str] = field(default_factory=dict)
    """The sha256 of each package's file to what it is called when it is unpacked."""

    @property
    def stem(self) -> str:
        """What its files are called."""
        return stem(self.name)

    @property
    def tag(self) -> str:
        """What its Python ends the names of bytecode with."""
        return "cpython-" + self.series.replace(".", "")

    def identity(self, file: LockedFile) -> str | None:
        """What a package's file is called when it is unpacked; None for what is no package's."""
        return None if file == self.uv else self._rows.get(file.sha256)

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the script."""
        return hashlib.sha256(self.script).hexdigest()

    @cached_property
    def packed(self) -> bytes:
        """The script as gzip, the same each time."""
        return gzip.compress(self.script, 9, mtime=0)

    @cached_property
    def files(self) -> list[LockedFile]:
        """All files that a build may need."""
        return locked_files([self.name], self.catalogue)

    @property
    def uv(self) -> LockedFile:
        """The wheel of uv."""
        return next(file for file in self.files if file.name == "uv" and file.sha256 == self._rows["uv"])

    def lacking(self, host: Host) -> list[LockedFile]:
        """The files that a host must get to build it; uv last, where it is among them."""
        known = host.wheels.get(self.tag, frozenset())
        packages = {sha256: name[:16] in known for sha256, name in self._rows.items() if sha256 != "uv"}
        sources = any(file.is_source and not packages.get(file.sha256, False) for file in self.files)
        found = []
        for file in self.files:
            if file == self.uv:
                continue
            if file.builds and file.sha256 not in packages:
                here = not sources
            else:
                here = packages.get(file.sha256, file.sha256 in host.archives)
            if not here:
                found.append(file)
        return found if self.uv_version in host.uv else [*found, self.uv]


def subject(name: str, catalogue: Catalogue) -> Subject:
    """What is deployed of the profile `name`. Raises ProfileError, LockError, and ConsentError."""
    evaluation = evaluate(name, catalogue)
    agreed = consent.check(name, evaluation.content)
    lock = evaluation.locked
    builds = lock.get("build-requires", [])
    rows = {package["sha256"]: identity(package, builds) for package in lock["packages"]}
    return Subject(
        name,
        catalogue,
        evaluation.store_name,
        evaluation.script.read_bytes(),
        evaluation.script.name,
        agreed,
        catalogue.profile(name).target.platform,
        catalogue.profile(name).python.series,
        lock["uv"]["version"],
        {**rows, "uv": lock["uv"]["sha256"]},
    )


def absent(files: Sequence[LockedFile]) -> list[LockedFile]:
    """Those that the desk itself does not have yet."""
    mirror = local_mirror().root
    return [file for file in files if not (mirror / file.path).is_file()]


def gather(files: Sequence[LockedFile], catalogue: Catalogue, report: Reporter) -> None:
    """Bring files to the desk's own mirror. Raises DrydockError."""
    gatherer = Gatherer(catalogue, report)
    bring(files, local_mirror(), gatherer.fetch, report, before=gatherer.prepare)


@dataclass(frozen=True)
class Parcel:
    """A tar that is made while it is read, and files that follow it with their sizes; all sizes in bytes."""

    members: Sequence[tuple[str, bytes | Path]]
    raw: Sequence[tuple[Path, int]] = ()

    @cached_property
    def _heads(self) -> Sequence[tuple[bytes, int]]:
        """Of each member its head, and its size."""
        sizes = ((name, content, _size(content)) for name, content in self.members)
        return [(_head(name, size, _mode(content)), size) for name, content, size in sizes]

    @cached_property
    def size(self) -> int:
        """The size of the tar."""
        return sum(len(head) + size + -size % _TAR for head, size in self._heads) + 2 * _TAR

    @property
    def total(self) -> int:
        """The size of it all."""
        return self.size + sum(size for _, size in self.raw)

    def chunks(self) -> Iterator[bytes]:
        """The bytes, in pieces that are not small."""
        waiting = bytearray()
        for piece in self._pieces():
            if len(waiting) + len(piece) > _BLOCK and waiting:
                yield bytes(waiting)
                waiting.clear()
            if len(piece) >= _BLOCK:
                yield piece
            else:
                waiting += piece
        yield bytes(waiting)

    def _pieces(self) -> Iterator[bytes]:
        for (_, content), (head, size) in zip(self.members, self._heads, strict=True):
            yield head
            if isinstance(content, bytes):
                yield content
            else:
                yield from _content(content, size)
            yield bytes(-size % _TAR)
        yield bytes(2 * _TAR)
        for path, size in self.raw:
            yield from _content(path, size)


def parcel(
    what: Subject,
    files: Sequence[LockedFile],
    work: Path,
    *,
    script: bool,
    more: Iterable[tuple[str, bytes | Path]] = (),
    raw: Sequence[tuple[Path, int]] = (),
) -> Parcel:
    """The parcel with some files, which the desk's mirror has, `more`, and what follows the tar; `work` is a folder for
    what is made once.
    """
    mirror = local_mirror().root
    members: list[tuple[str, bytes | Path]] = [("script.gz", what.packed)] if script else []
    if what.uv in files:
        packed = work / f"{what.uv.sha256}.gz"
        if not packed.exists():
            put_uv(mirror / what.uv.path, packed)
        members.append(("uv.gz", packed))
    sent = [file for file in files if file != what.uv]
    if sent:
        members += _mirror(sent, mirror)
    return Parcel([*members, *more, ("end", b"\n")], raw)


def _mirror(files: Sequence[LockedFile], mirror: Path) -> Iterator[tuple[str, bytes | Path]]:
    """The files as a mirror of their own: pages of an index, files, sums."""
    rows = [pages.Stored(file.sha256, file.file, (mirror / file.path).stat().st_size) for file in files]
    projects: dict[str, list[pages.Stored]] = {}
    for row in rows:
        yield f"mirror/{row.path}", mirror / row.path
        if not pages.is_apart(row.file):
            projects.setdefault(row.project, []).append(row)
    for project, some in projects.items():
        for path, text in pages.project_pages(project, some).items():
            if path.endswith(".html"):
                yield f"mirror/{path}", text.encode()
    yield "mirror/SHA256SUMS", pages.sums(rows).encode()


def _content(path: Path, size: int) -> Iterator[bytes]:
    left = size
    with path.open("rb", buffering=0) as file:
        while left and (block := file.read(min(_BLOCK, left))):
            left -= len(block)
            yield block
    # A file that was cut meanwhile: the host sees by its hash that it is another one.
    yield bytes(left)


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _mode(content: bytes | Path) -> int:
    return 0o755 if isinstance(content, Path) and content.stat().st_mode & 0o100 else 0o644


def _head(name: str, size: int, mode: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, mode, int(time.time())
    return member.tobuf(tarfile.GNU_FORMAT)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for what is made once for all hosts."""
    return tempfile.TemporaryDirectory(prefix="drydock-fleet-")
