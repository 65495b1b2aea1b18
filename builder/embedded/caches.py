"""Caches: mirrors that a build looks into before it asks an index. `drydock push` and `drydock pull` write them.

They are the folder cache/mirror of Drydock's own, and what DRYDOCK_CACHE names: folders and URLs, separated by white
space or commas. What a cache has is said by its SHA256SUMS; what it serves is believed only by its hash.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from builder.embedded import caller
from builder.embedded.config_files import is_true

VARIABLE = "DRYDOCK_CACHE"
LARGEST_INDEX = 1 << 26
"""Bytes of a SHA256SUMS: some 500,000 files."""


def places(environ: Mapping[str, str] = os.environ) -> list[str]:
    """What DRYDOCK_CACHE names.

    >>> places({"DRYDOCK_CACHE": "https://host/mirror, /srv/mirror"})
    ['https://host/mirror', '/srv/mirror']
    """
    named = [word for word in re.split(r"[,\s]+", environ.get(VARIABLE, "")) if word]
    return [word if "://" in word else os.path.join(caller.folder_of(environ), word) for word in named]


def shown(text: str) -> str:
    """A URL without user, password and query, as it may be said or written.

    >>> shown("https://me:secret@host:8080/a?token=b"), shown("me@host:folder")
    ('https://host:8080/a', 'me@host:folder')
    """
    if "://" not in text:
        return text
    from builder.embedded.network_settings import shown_url

    return shown_url(text)


def is_far(place: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a place is on the web, and no network is to be used (`drydock --offline`, UV_OFFLINE)."""
    return is_true(environ.get("UV_OFFLINE", "")) and place.startswith(("http://", "https://"))


def has(place: str) -> set[str]:
    """The sha256 of every file that a cache says it has. Raises OSError."""
    if place.startswith(("http://", "https://")):
        from builder.embedded.web import open_url  # here, because most builds need none of it

        with open_url(place.rstrip("/") + "/SHA256SUMS", limit=LARGEST_INDEX, seconds=60) as answer:
            text = answer.read().decode("ascii", "replace")
    elif "://" in place and not place.startswith("file://"):
        raise OSError("a script cannot read it; drydock pull can")
    else:
        folder = Path(place[len("file://") :] if place.startswith("file://") else place)
        text = (folder / "SHA256SUMS").read_text(encoding="ascii", errors="replace")
    return {line[:64] for line in text.splitlines() if re.fullmatch(r"[0-9a-f]{64}  files/.*", line)}


def known(place: str, environ: Mapping[str, str] = os.environ) -> set[str]:
    """What `has` says; nothing, and a warning, where a cache cannot be used."""
    if is_far(place, environ):
        return set()
    try:
        return has(place)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        print(f"drydock: warning: the cache {shown(place)} cannot be used: {why}; going on without it", file=sys.stderr)
        return set()


def index_of(place: str) -> str:
    """The index that a cache is for uv: a URL, or the folder.

    >>> index_of("https://host/mirror/"), index_of("file:///srv/mirror")
    ('https://host/mirror/simple/', '/srv/mirror/simple/')
    """
    folder = place[len("file://") :] if place.startswith("file://") else place
    if "://" not in folder:
        folder = os.path.abspath(folder)
    return folder.rstrip("/") + "/simple/"
