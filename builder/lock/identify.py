"""Which file a package is, by sha256 and size, where its index does not say: then it is fetched and hashed.

Indexes with md5 only, with no hash, or without sizes are in use (PEP 503 asks for neither; Nexus, Artifactory).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from builder.download import download
from builder.embedded.caches import is_far
from builder.embedded.network_settings import shown_url
from builder.embedded.web import open_url
from builder.errors import LockError
from builder.uv import Candidate

# Of hashlib, as PEP 503 allows them in the fragment of a URL.
_KNOWN = ("blake2b", "md5", "sha1", "sha224", "sha256", "sha384", "sha512")
_AT_ONCE = 8


@dataclass(frozen=True)
class Identified:
    """A file that is known by content: its sha256, and its size in bytes, 0 where no server says it."""

    file: str
    sha256: str
    size: int


def the_one(package: str, files: Sequence[Candidate]) -> Candidate:
    """One of several places of one file: one with a sha256, and of these one on this machine.

    Raises LockError where they differ: then nobody knows which is meant.
    """
    # A wheel may be large, and in one folder by several names of it.
    apart = list({file.path.resolve() if file.path is not None else file.url: file for file in files}.values())
    said = {algorithm for file in apart for algorithm in file.hashes if algorithm in _KNOWN} or {"sha256"}
    for algorithm in sorted(said) if len(apart) > 1 else ():
        found = ((_hash(file, algorithm), file.url) for file in apart)
        places = {value: url for value, url in found if value is not None}
        if len(places) > 1:
            one, other = (shown_url(url) for url in list(places.values())[:2])
            raise LockError(
                f"{package} is there twice, with other content under one name: {one} and {other}",
                hint="remove one of them, or leave its place out: drydock doctor --network says who names it",
            )
    return min(files, key=lambda file: (file.sha256 is None, file.path is None))


def _hash(file: Candidate, algorithm: str) -> str | None:
    known = file.hashes.get(algorithm)
    if known is None and file.path is not None:
        return hashlib.new(algorithm, file.path.read_bytes(), usedforsecurity=False).hexdigest()
    return known


def identified(files: Sequence[Candidate], folder: Path) -> list[Identified]:
    """The files with the sha256 and the size of each.

    Those without a sha256 are fetched to the folder `folder`, and compared with the hash that the index has of them.
    Raises LockError where one cannot be had, or is not what its index says.
    """

    def complete(at: int) -> Identified:
        file = files[at]
        if file.sha256 is None:
            return _fetched(file, folder / str(at))
        return Identified(file.file, file.sha256, _size(file.url) if file.size is None else file.size)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(complete, range(len(files))))


def _fetched(file: Candidate, target: Path) -> Identified:
    promised = {name: value for name, value in file.hashes.items() if name in _KNOWN}
    place = shown_url(file.url)
    try:
        found = download(file.url, target, size=file.size or 0, algorithms=("sha256", *promised))
    except OSError as error:
        raise LockError(
            f"{place} has no sha256 on its index, and cannot be fetched to be hashed: {error}",
            hint="drydock doctor --network says how it is reached",
        ) from None
    finally:
        target.unlink(missing_ok=True)
    for name, value in promised.items():
        if found.hashes[name] != value:
            raise LockError(f"{place} is not what its index says: its {name} is {found.hashes[name]}, not {value}")
    return Identified(file.file, found.hashes["sha256"], found.size)


def _size(url: str) -> int:
    """The size of a file on a server that says it, else 0."""
    if not url.startswith(("http://", "https://")) or is_far(url):
        return 0
    try:
        with open_url(url, limit=1, seconds=15, method="HEAD") as answer:
            length = answer.headers.get("Content-Length") or ""
    except OSError:
        return 0
    return int(length) if length.isdecimal() else 0
