"""Files from web servers: each within limits of size and time, and hashed on its way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

_BLOCK = 1 << 20
LARGEST = 1 << 36
"""Bytes that a file has at most whose size nobody says: more than the largest wheel."""
# A file is given up that comes more slowly than this, in bytes a second, on the whole; each has a minute to begin with.
_SLOWEST = 1 << 14
_BEGIN = 60


class Downloaded(NamedTuple):
    """What has come: its size in bytes, and its hashes, by their names in hashlib."""

    size: int
    hashes: dict[str, str]


def download(
    url: str,
    target: Path,
    *,
    size: int = 0,
    limit: int = LARGEST,
    seconds: float | None = None,
    algorithms: Sequence[str] = ("sha256",),
    may_follow: Callable[[str], bool] | None = None,
    secret: str = "",
) -> Downloaded:
    """Bring what a URL (http, https) has to `target`, with this machine's proxies, certificates and credentials.

    `size` is what is expected, where that is known; `may_follow` decides about redirections, `secret` is as `open_url`
    has it. Raises OSError, also where it is cut short, longer than `size` or `limit`, or takes too long.
    """
    from builder.embedded.web import open_url

    most = size or limit
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    allowed = seconds if seconds is not None else _BEGIN + most / _SLOWEST
    count = 0
    with (
        open_url(url, limit=most, seconds=allowed, may_follow=may_follow, secret=secret) as answer,
        target.open("wb") as file,
    ):
        while block := answer.read(_BLOCK):
            for digest in digests.values():
                digest.update(block)
            file.write(block)
            count += len(block)
    return Downloaded(count, {name: digest.hexdigest() for name, digest in digests.items()})
