"""A trainer's own code: one archive in the store, named by its sha256, and copies of it that trainers run in.

    HOME/cache/built/SHA256/FILE    the archive, read-only; what `drydock push`, `pull` and `bundle` carry
    FOLDER/.drydock-source          in a copy: the sha256 of what it is a copy of; what has one is complete

An archive is a zip without compression, the same bytes wherever it is made of a commit. A trainer writes into the
folder that it runs in, so that it gets a copy, which is the user's from then on: nothing here changes or deletes one.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from builder.embedded import caches, claim, folders, git, installer, lifeline
from builder.embedded.config_files import is_true
from builder.embedded.errors import StageError
from builder.embedded.hashes import sha256

STAMP = ".drydock-source"
LARGEST = 1 << 28
"""Bytes of an archive: as many as git may write here (builder/embedded/git.py)."""

_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # that a zip knows


class Wanted(NamedTuple):
    """An archive: its `file` name, its `sha256`, and the `commit` of the repository at `place` that it is made of."""

    file: str
    sha256: str
    place: str
    commit: str


def pack(tar: Path, target: Path) -> None:
    """Write the regular files of a tar as a zip; links are left out. Raises OSError, StageError."""
    total = 0
    with tarfile.open(tar) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for member in sorted(filter(tarfile.TarInfo.isreg, old), key=lambda one: one.name):
            content = old.extractfile(member)
            total += member.size
            if total > LARGEST:
                raise StageError(f"it has more than {LARGEST >> 20} MB")
            if content is not None:
                entry = zipfile.ZipInfo(member.name, _FIRST_DAY)
                entry.create_system = 3  # Unix
                entry.external_attr = (0o755 if member.mode & 0o100 else 0o644) << 16
                new.writestr(entry, content.read())


def bring(wanted: Wanted, home: Path, mirror: Path, seconds: float = git.PATIENCE) -> Path:
    """The archive, in the store: as it is there, else from a cache, else made of its commit, which may take `seconds`.

    Raises StageError where no place has it, or its place has something else; OSError.
    """
    target = home / "cache" / "built" / wanted.sha256 / wanted.file
    if target.is_file() and _hash_of(target) == wanted.sha256:
        os.utime(target.parent)  # a collection leaves alone what was used a moment ago
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    claim.sweep(target.parent, ".new-")
    work, top = claim.begin(target.parent, ".new-")
    try:
        found = work / wanted.file
        if not any(_copied(place, wanted, found) for place in installer.places(mirror, os.environ)):
            _made(wanted, work, found, seconds)
        os.chmod(found, folders.mode_of(0o444))
        os.replace(found, target)
    finally:
        folders.remove_path(work)
        os.close(top)
    return target


def _hash_of(path: Path) -> str:
    return sha256(path.read_bytes())


def _copied(place: str, wanted: Wanted, target: Path) -> bool:
    """Whether a cache has brought the archive to `target`."""
    if wanted.sha256 not in caches.known(place):
        return False
    path = f"files/{wanted.sha256[:2]}/{wanted.sha256}/{wanted.file}"
    try:
        if place.startswith(("http://", "https://")):
            from builder.embedded.web import open_url

            url = f"{place.rstrip('/')}/{path}"
            with open_url(url, limit=LARGEST, seconds=600) as answer, open(target, "wb") as to:
                shutil.copyfileobj(answer, to)
        else:
            shutil.copyfile(Path(place[len("file://") :] if place.startswith("file://") else place) / path, target)
        if _hash_of(target) == wanted.sha256:
            return True
        why = "it has another file under this name"
    except OSError as error:
        why = error.strerror or str(error)
    _say(f"warning: the cache {caches.shown(place)} did not send {wanted.file}: {why}; going on without it")
    return False


def _made(wanted: Wanted, work: Path, target: Path, seconds: float) -> None:
    if is_true(os.environ.get("UV_OFFLINE", "")) and not wanted.place.startswith("file://"):
        raise StageError(f"{wanted.file}, the trainer's code, is not here, and no network is to be used", _OTHERS)
    _say(f"fetching the trainer's code: {wanted.place}, commit {wanted.commit[:12]}")
    try:
        pack(git.tar_of(wanted.place, wanted.commit, work, seconds=seconds), target)
    except StageError as error:
        raise StageError(f"the trainer's code: {error}", f"{error.hint or 'is it in reach?'}; {_OTHERS}") from None
    found = _hash_of(target)
    if found != wanted.sha256:
        raise StageError(
            f"the trainer's code: commit {wanted.commit} of {wanted.place} is not what was locked: its archive has the "
            f"sha256 {found[:12]}, and {wanted.sha256[:12]} is locked",
            "find out why before you lock it again: drydock lock --upgrade trainer",
        )


_OTHERS = "drydock push and pull, DRYDOCK_CACHE and bundles bring it too"


def copy(archive: Path, folder: Path, digest: str) -> None:
    """Make `folder` a copy of an archive, whole or not at all; one that is there is left as it is.

    Raises StageError where something else is there, OSError.
    """
    claim.sweep(folder.parent, f".{folder.name}-")
    stage, top = claim.begin(folder.parent, f".{folder.name}-")
    try:
        with zipfile.ZipFile(archive) as source:
            for entry in source.infolist():
                path = stage.joinpath(*_checked(entry.filename))
                path.parent.mkdir(parents=True, exist_ok=True)
                with source.open(entry) as content, open(path, "xb") as file:
                    shutil.copyfileobj(content, file)
                    os.fchmod(file.fileno(), 0o755 if entry.external_attr >> 16 & 0o100 else 0o644)
        os.unlink(stage / claim.NOTE)
        (stage / STAMP).write_text(f"{digest}\n", encoding="ascii")
        _put(stage, folder, digest)
    finally:
        folders.remove_path(stage)
        os.close(top)


def _put(stage: Path, folder: Path, digest: str) -> None:
    try:
        os.rename(stage, folder)
    except OSError:
        if not os.path.lexists(folder):
            raise
        if not is_copy(folder, digest):  # another start was faster
            raise StageError(
                f"{folder} is in the way: it is not a copy of the trainer's code", "move it away"
            ) from None


def is_copy(folder: Path, digest: str) -> bool:
    """Whether a folder is a copy of that archive, which its user may have changed since."""
    try:
        return (folder / STAMP).read_text(encoding="ascii").strip() == digest
    except (OSError, ValueError):
        return False


def _checked(name: str) -> Sequence[str]:
    """The parts of the name of a file in an archive. Raises StageError where it leads out."""
    if "\\" in name or not folders.is_below(name):
        raise StageError(f"a file in it is called {name[:100]!a}, which leads out of it")
    return name.split("/")


def command(home: str, mirror: str, script: str, folder: str, *wanted: str) -> None:
    """Bring an archive, and copy it to `folder` where that is not "", for the script of a process."""
    lifeline.leave_on_signals()
    folders.build_in(Path(home))
    guard = lifeline.Guard(int(script))
    try:
        named = Wanted(*wanted)
        # A build that only may need it later does not wait long.
        archive = bring(named, Path(home), Path(mirror), 300 if folder else 30)
        if folder:
            copy(archive, Path(folder), named.sha256)
    finally:
        guard.end()


def _say(words: str) -> None:
    print(f"drydock: {words}", file=sys.stderr, flush=True)
