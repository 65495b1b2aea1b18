"""Download an archive over HTTPS, within limits of size and time."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from builder import download as web
from builder.embedded.network_settings import shown_url
from builder.errors import SourceError
from builder.project.sources.declared import is_loopback
from builder.project.sources.tree import MAX_BYTES

_SECONDS = 300.0


def download(url: str, file: Path, *, limit: int = MAX_BYTES) -> None:
    """Write what is at `url` to `file`. Raises SourceError where it cannot be had, or is too much."""

    def may_follow(new: str) -> bool:
        """To https:// only; for tests, from a server on loopback to one on loopback."""
        local = url.startswith("http://") and new.startswith("http://") and is_loopback(new)
        return local or urlsplit(new).scheme == "https"

    try:
        web.download(url, file, limit=limit, seconds=_SECONDS if limit == MAX_BYTES else None, may_follow=may_follow)
    except OSError as error:
        file.unlink(missing_ok=True)
        raise SourceError(f"{shown_url(url)} cannot be fetched: {error}") from None
