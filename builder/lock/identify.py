"""Which file a package is, by sha256 and size, where its index does not say: then it is fetched and hashed.

Indexes with md5 only, with no hash, or without sizes are in use (PEP 503 asks for neither; Nexus, Artifactory).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from builder.download import download
from builder.embedded.caches import is_far
from builder.embedded.network_settings import shown_url
from builder.embedded.web import open_url
from builder.errors import LockError

# Of hashlib, as PEP 503 allows them in the fragment of a URL.
_KNOWN = ("blake2b", "md5", "sha1", "sha224", "sha256", "sha384", "sha512")
_AT_ONCE = 8


def the_one(package: str, files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One of several places of one file: one with a sha256, and of these one on this machine.

    Raises LockError where they differ: then nobody knows which is meant.
    """
    for algorithm in _KNOWN:
        places = {_hash(file, algorithm): file["url"] for file in files if _hash(file, algorithm)}
        if len(places) > 1:
            one, other = (shown_url(url) for url in list(places.values())[:2])
            raise LockError(
                f"{package} is there twice, with other content under one name: {one} and {other}",
                hint="remove one of them, or leave its place out: drydock doctor --network says who names it",
            )
    return min(files, key=lambda file: ("sha256" not in file["hashes"], not file["url"].startswith("file://")))


def _hash(file: dict[str, Any], algorithm: str) -> str | None:
    known: str | None = file["hashes"].get(algorithm)
    if known is None and file["url"].startswith("file://"):
        return hashlib.new(algorithm, _local(file["url"]).read_bytes(), usedforsecurity=False).hexdigest()
    return known


def identified(files: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """The files (PEP 751: `url`, `hashes`, `size`) with the sha256 and the size of each.

    Those without a sha256 are fetched to the folder `folder`, and compared with the hash that the index has of them.
    Raises LockError where one cannot be had, or is not what its index says.
    """

    def complete(at: int) -> dict[str, Any]:
        file = files[at]
        if "sha256" not in file["hashes"]:
            return _fetched(file, folder / str(at))
        return file if "size" in file else {**file, "size": _size(file["url"])}

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(complete, range(len(files))))


def _fetched(file: dict[str, Any], target: Path) -> dict[str, Any]:
    promised = {name: value for name, value in file["hashes"].items() if name in _KNOWN}
    place = shown_url(file["url"])
    try:
        found = download(file["url"], target, size=file.get("size", 0), algorithms=("sha256", *promised))
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
    return {**file, "hashes": {**file["hashes"], **found.hashes}, "size": found.size}


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


def _local(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))
