"""Download an archive over HTTPS, within limits of size and time."""

from __future__ import annotations

import netrc
import os
import time
from base64 import b64encode
from contextlib import suppress
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from ssl import SSLError
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from builder.errors import SourceError
from builder.project.sources.declared import is_loopback
from builder.project.sources.tree import MAX_BYTES

_WAIT = 30.0  # seconds for an answer, and for each piece of it
_TIME = 300.0  # seconds for all of it


def download(url: str, file: Path) -> None:
    """Write what is at `url` to `file`. Raises SourceError where it cannot be had, or is too much."""
    request = Request(url, headers={"User-Agent": "drydock"})  # noqa: S310 - https, or http on loopback
    if secret := _authorization(urlsplit(url).hostname or ""):
        request.add_unredirected_header("Authorization", secret)
    until, size = time.monotonic() + _TIME, 0
    try:
        with build_opener(_Redirects(url)).open(request, timeout=_WAIT) as answer, file.open("xb") as out:
            while piece := answer.read1(2**16):
                size += len(piece)
                if size > MAX_BYTES:
                    raise SourceError(f"{url} is more than {MAX_BYTES // 2**20} MB")
                if time.monotonic() > until:
                    raise SourceError(f"{url} has not come in {_TIME:g} s")
                out.write(piece)
            expected = answer.headers.get("Content-Length", "")
            if expected.isdecimal() and int(expected) != size:
                raise SourceError(f"{url} ended too early: {size} bytes of {expected}")
    except HTTPError as error:
        raise SourceError(f"{url} cannot be fetched: {error.code} {error.reason}") from None
    except (URLError, HTTPException, TimeoutError, ConnectionError, SSLError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise SourceError(f"{url} cannot be fetched: {str(reason) or type(reason).__name__}") from None


class _Redirects(HTTPRedirectHandler):
    """Follows to https:// only: what was asked for over an encrypted connection never comes over another."""

    def __init__(self, first: str) -> None:
        self._first = first

    def http_error_302(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> HTTPResponse | None:
        new = urljoin(req.full_url, headers.get("Location") or headers.get("URI") or "")
        local = self._first.startswith("http://") and new.startswith("http://") and is_loopback(new)
        if not new.startswith("https://") and not local:
            raise SourceError(f"{self._first} leads to {ascii(new)[1:-1]}, which is not an https:// URL")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _authorization(host: str) -> str | None:
    """What ~/.netrc, or NETRC, says for a host."""
    with suppress(OSError, netrc.NetrcParseError):
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
        if found is not None:
            return "Basic " + b64encode(f"{found[0]}:{found[2]}".encode()).decode()
    return None
