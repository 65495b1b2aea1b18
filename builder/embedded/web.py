"""Asking web servers, with this machine's proxies, certificates and credentials, and within limits."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, Callable, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit, urlunsplit

from builder.embedded.certificates import context
from builder.embedded.credentials import Keyring, authorization, basic, known_user
from builder.embedded.network_settings import Network, read, shown_url
from builder.embedded.words import printable

PATIENCE = 15
"""Seconds without a byte after which a server is given up, where no setting names another time."""


_PIECE = 1 << 16


class RefusedError(OSError):
    """A server answered with an error; `code` is its status, `headers` what came with it."""

    def __init__(self, code: int, headers: Any) -> None:
        from http import HTTPStatus

        # In our words: those of the server could steer a terminal.
        words = HTTPStatus(code).phrase if code in list(HTTPStatus) else "an error"
        super().__init__(f"HTTP status {code}, {words}")
        self.code, self.headers = code, headers


class Answer:
    """What a server sends, within limits: to be used in a `with`.

    `status` and `headers` are those of HTTP. Reading raises OSError past `limit` bytes, after `seconds`, and where the
    connection breaks.
    """

    def __init__(self, reply: Any, limit: int, watch: _Watch) -> None:
        self.status: int = reply.status
        self.headers: Mapping[str, str] = reply.headers
        self._reply, self._limit, self._watch, self._count = reply, limit, watch, 0

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.stop()
        self._reply.close()

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer at the end; all that is left where `size` is negative."""
        pieces: List[bytes] = []
        wanted = size
        while wanted:
            piece = self._piece(min(wanted, _PIECE) if wanted > 0 else _PIECE)
            if not piece:
                break
            pieces.append(piece)
            wanted -= len(piece) if wanted > 0 else 0
        return b"".join(pieces)

    def _piece(self, size: int) -> bytes:
        from http.client import HTTPException

        try:
            piece: bytes = self._reply.read1(size)
        except (OSError, HTTPException) as error:
            self._watch.check()
            raise _explained(error) from None
        self._watch.check()
        self._count += len(piece)
        if self._count > self._limit:
            most = f"{self._limit >> 20} MiB" if self._limit >= 1 << 20 else f"{self._limit} bytes"
            raise OSError(f"it is more than {most}")
        if not piece:
            self._check_length()
        return piece

    def _check_length(self) -> None:
        promised = self.headers.get("Content-Length") or ""
        if promised.isdecimal() and self._count < int(promised) and not getattr(self._reply, "chunked", False):
            raise OSError(f"it ended after {self._count} of {promised} bytes")


class _Watch:
    """Ends a connection after some seconds: no time limit of a socket does, when a byte comes now and then."""

    def __init__(self, seconds: float) -> None:
        import threading

        self.sockets: List[Any] = []
        self._seconds, self._over = seconds, False
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        import socket

        self._over = True
        for one in self.sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self._timer.cancel()

    def check(self) -> None:
        """Raises OSError where the time is over."""
        if self._over:
            raise OSError(f"it has not come in {self._seconds:g} s")


def open_url(
    url: str,
    *,
    limit: int,
    seconds: float,
    environ: Mapping[str, str] = os.environ,
    headers: Optional[Mapping[str, str]] = None,
    method: str = "GET",
    may_follow: Optional[Callable[[str], bool]] = None,
    secret: str = "",
) -> Answer:
    """Ask a web server, with this machine's proxies, certificates and credentials.

    Credentials in the URL are sent, and never said; `secret` is an Authorization header instead, which no other host
    gets. `limit` is in bytes, `seconds` is for the whole answer;
    `may_follow` says whether a URL may be redirected to, beside the rule that an encrypted one leads to no other.
    Raises OSError: RefusedError where the server answers with an error, DistrustedError for its certificate.
    """
    try:
        urlsplit(url)
    except ValueError:
        raise OSError("it is not a URL") from None
    found = read(environ)
    question = _Question(url, headers or {}, method, limit, seconds, may_follow or (lambda _: True))
    keyring = Keyring(environ) if found.first("UV_KEYRING_PROVIDER") == "subprocess" else None
    try:
        return _asked(question, found, secret or authorization(url, found))
    except RefusedError as error:
        user = (known_user(url, found) or ("", ""))[0]
        pair = keyring.ask(url, user) if keyring is not None and error.code == 401 else None
        if pair is None:
            raise
    return _asked(question, found, basic(*pair))


class _Question(NamedTuple):
    """What is asked, and within which limits."""

    url: str
    headers: Mapping[str, str]
    method: str
    limit: int
    seconds: float
    may_follow: Callable[[str], bool]


def _asked(question: _Question, found: Network, secret: Optional[str]) -> Answer:
    import http.client
    import urllib.error
    import urllib.request

    parts = urlsplit(question.url)
    if parts.scheme not in ("http", "https"):
        raise OSError(f"{parts.scheme or 'no'}:// is not a web server")
    host = parts.netloc.rpartition("@")[2]
    bare = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    headers = {"User-Agent": "drydock", **question.headers}
    request = urllib.request.Request(bare, headers=headers, method=question.method)  # noqa: S310
    if secret:
        request.add_unredirected_header("Authorization", secret)
    watch = _Watch(question.seconds)
    handlers = [_through_proxies(found), *_connections(found, watch), _redirections(found, question, (host, secret))]
    opener = urllib.request.build_opener(*handlers)
    try:
        reply = opener.open(request, timeout=float(found.first("timeout") or 0) or PATIENCE)
    except urllib.error.HTTPError as error:
        watch.stop()
        error.close()
        if 300 <= error.code < 400:  # of another kind, or round and round
            raise _not_followed(error.headers.get("Location") or "nowhere") from None
        raise RefusedError(error.code, error.headers) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        watch.stop()
        watch.check()
        raise _explained(error) from None
    return Answer(reply, question.limit, watch)


def _not_followed(url: str) -> OSError:
    return OSError(f"it redirects to {ascii(shown_url(url))[1:-1]}, which is not followed")


def _explained(error: Exception) -> OSError:
    """The same, in words that are no server's."""
    reason = getattr(error, "reason", error)
    distrust = getattr(reason, "verify_message", None)  # of ssl.SSLCertVerificationError
    if distrust is not None:
        return DistrustedError(f"its certificate is not trusted: {distrust}")
    if isinstance(reason, TimeoutError) or "timed out" in str(reason):
        return TimeoutError("it does not answer")
    words = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return OSError(printable(str(words)))


class DistrustedError(OSError):
    """The certificate of a server is not one that this machine trusts."""


def _connections(found: Network, watch: _Watch) -> List[Any]:
    """What connects to servers; `watch` learns of each connection."""
    import http.client
    import urllib.request

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            watch.sockets.append(self.sock)

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            watch.sockets.append(self.sock)

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, req: Any) -> Any:
            return self.do_open(Plain, req)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: Any) -> Any:
            # Behind a proxy, `host` is the proxy.
            return self.do_open(Secure, req, context=context(found, req._tunnel_host or req.host))

    return [PlainHandler(), SecureHandler()]


def _redirections(found: Network, question: _Question, known: Tuple[str, Optional[str]]) -> Any:
    """Follows to the web only, never from an encrypted place to another, and takes no credentials along.

    `known` is the host that was asked, and the header with which.
    """
    import urllib.request

    class Redirections(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            old, new = urlsplit(req.full_url), urlsplit(newurl)
            worse = new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme == "http")
            if worse or not question.may_follow(newurl):
                fp.close()
                raise _not_followed(newurl)
            again = super().redirect_request(req, fp, code, msg, headers, newurl)
            secret = known[1] if new.netloc == known[0] else authorization(newurl, found)
            if again is not None and secret:
                again.add_unredirected_header("Authorization", secret)
            return again

    return Redirections()


def _through_proxies(found: Network) -> Any:
    import urllib.request

    class Proxies(urllib.request.ProxyHandler):
        def proxy_open(self, req: Any, proxy: str, type: str) -> Any:  # noqa: A002
            if req.host and _is_direct(req.host, found.first("no-proxy") or ""):
                return None
            if not proxy.startswith("http://"):
                raise OSError(f"the proxy {shown_url(proxy)} is not one that Python can use")
            return super().proxy_open(req, proxy, type)

    names = {"http": found.first("http-proxy"), "https": found.first("https-proxy")}
    return Proxies({scheme: proxy for scheme, proxy in names.items() if proxy})


def _is_direct(host: str, without: str) -> bool:
    """Whether NO_PROXY excepts a host: by its name, a domain that it is in, or a network (as uv reads it).

    >>> _is_direct("a.corp.example:443", "localhost, .corp.example"), _is_direct("10.1.2.3", "10.0.0.0/8")
    (True, True)
    >>> _is_direct("pypi.example", "corp.example"), _is_direct("xcorp.example", "corp.example")
    (False, False)
    """
    import ipaddress

    name = urlsplit(f"//{host}").hostname or ""
    for word in without.replace(",", " ").split():
        if word == "*" or word.lower() in (name, host.lower()) or name.endswith("." + word.lower().lstrip("*.")):
            return True
        with suppress(ValueError):
            if ipaddress.ip_address(name) in ipaddress.ip_network(word, strict=False):
                return True
    return False
