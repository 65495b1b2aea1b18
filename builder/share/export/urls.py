"""Places of the files of a lock: the lock itself has no URL, so that it serves every mirror."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from builder.errors import LockError, UsageError
from builder.files import hash_of
from builder.lock.finder import candidates
from builder.lock.model import Artefact
from builder.project.catalogue import Entry
from builder.project.sources import consent
from builder.uv import Candidate


@dataclass(frozen=True)
class Place:
    """Where one file is: at a `url`, without user name, password and query, or at a `path` of this machine.

    `secret` says that the URL had any of these. `uploaded` is when, where the index says so (RFC 3339).
    """

    url: str | None = None
    path: Path | None = None
    secret: bool = False
    uploaded: datetime | None = None


def find_places(entry: Entry, wheels: Path | None) -> Mapping[str, Place]:
    """The place of each locked file, by its name: in the folder `wheels`, else what the configured indexes say now.

    Raises LockError where an index has a file no more, or another under its name, and UsageError where `wheels` is not
    a folder or has another file, and ConsentError where metadata would be built that nobody has agreed to.
    """
    packages = list(entry.plan.lock.packages)
    found = {file: Place(path=path) for file, path in in_folder(wheels, packages).items()}
    for package in packages:
        if package.origin is not None and package.file not in found:
            raise LockError(
                f"{package.file} was built here of what is at a place, and no index has it",
                hint=f"push it: drydock push {entry.name} MIRROR; then a folder that has it: --wheels DIR",
            )
    rest = [package for package in packages if package.file not in found]
    said = candidates(entry.profile, rest, consent.for_builds(entry)) if rest else {}
    return found | {package.file: _place_of(package, said.get(package.sha256)) for package in rest}


def in_folder(folder: Path | None, packages: Sequence[Artefact]) -> dict[str, Path]:
    """Return the files that a folder has, by name. Raises UsageError where it is not a folder, or has another file."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    found = {package.file: path for package in packages if (path := folder.absolute() / package.file).is_file()}
    for package in packages:
        if package.file in found and hash_of(found[package.file]) != package.sha256:
            raise UsageError(
                f"{found[package.file]} is not the file that is locked: its sha256 differs", hint="remove it"
            )
    return found


def _place_of(package: Artefact, file: Candidate | None) -> Place:
    if file is None:
        raise LockError(
            f"the index has no {package.file} with the sha256 that is locked",
            hint="use a folder that has it: --wheels DIR",
        )
    if file.path is not None:
        return Place(path=file.path)
    parts = urlsplit(file.url)
    public = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return Place(url=public, secret=bool("@" in parts.netloc or parts.query), uploaded=file.uploaded)
