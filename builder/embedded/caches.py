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
from typing import Any

VARIABLE = "DRYDOCK_CACHE"
PATIENCE = 15
"""Seconds without a byte after which a web server is given up."""


def places(environ: Mapping[str, str] = os.environ) -> list[str]:
    """What DRYDOCK_CACHE names.

    >>> places({"DRYDOCK_CACHE": "https://host/mirror, /srv/mirror"})
    ['https://host/mirror', '/srv/mirror']
    """
    return [word for word in re.split(r"[,\s]+", environ.get(VARIABLE, "")) if word]


def shown(text: str) -> str:
    """A URL without user, password and query, as it may be said or written.

    >>> shown("https://me:secret@host:8080/a?token=b")
    'https://host:8080/a'
    """
    if "://" not in text:
        return text
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(text)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def open_url(url: str) -> Any:
    """The answer of a web server, to be read as a file. Credentials in the URL are sent, and never said.

    Raises OSError (urllib.error.HTTPError where the server answers with an error).
    """
    import base64
    import urllib.request  # here, because most builds need none of it
    from urllib.parse import unquote, urlsplit, urlunsplit

    class OnlyTheWeb(urllib.request.HTTPRedirectHandler):
        """Follows redirections to the web only, and takes no credentials along to another host."""

        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            old, new = urlsplit(req.full_url), urlsplit(newurl)
            if new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme == "http"):
                raise OSError(f"it redirects to {new.scheme}://")
            again = super().redirect_request(req, fp, code, msg, headers, newurl)
            if again is not None and old.netloc != new.netloc:
                again.remove_header("Authorization")
            return again

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise OSError(f"{parts.scheme or 'no'}:// is no web server")
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(urlunsplit((parts.scheme, host, parts.path, parts.query, "")))  # noqa: S310
    request.add_header("User-Agent", "drydock")
    if parts.username is not None:
        pair = unquote(f"{parts.username}:{parts.password or ''}").encode()
        request.add_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
    handlers: list[Any] = [OnlyTheWeb()]
    if parts.scheme == "https":
        handlers.append(urllib.request.HTTPSHandler(context=_trust()))
    return urllib.request.build_opener(*handlers).open(request, timeout=PATIENCE)


def _trust() -> Any:
    import ssl

    context = ssl.create_default_context()
    # The Python of python.org has no certificates on macOS, which has them here.
    if not context.cert_store_stats()["x509_ca"] and os.path.exists("/etc/ssl/cert.pem"):
        context.load_verify_locations("/etc/ssl/cert.pem")
    return context


def is_far(place: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a place is on the web, and no network is to be used (`drydock --offline`, UV_OFFLINE)."""
    offline = environ.get("UV_OFFLINE", "").lower() not in ("", "0", "false", "no", "off")
    return offline and place.startswith(("http://", "https://"))


def has(place: str) -> set[str]:
    """The sha256 of every file that a cache says it has. Raises OSError."""
    if place.startswith(("http://", "https://")):
        with open_url(place.rstrip("/") + "/SHA256SUMS") as answer:
            text = answer.read(1 << 26).decode("ascii", "replace")
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
