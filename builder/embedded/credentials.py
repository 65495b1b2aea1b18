"""Users and passwords for servers: from URLs, netrc, and the program `keyring`."""

from __future__ import annotations

import shutil
from typing import List, Mapping, Optional, Tuple
from urllib.parse import unquote, urlsplit, urlunsplit

from builder.embedded.network_settings import Network, without_name


def authorization(url: str, found: Network) -> Optional[str]:
    """The value of the header for a URL: the user and password in it, those of an index on its host, or of netrc."""
    pair = known_user(url, found)
    if pair is not None:
        return basic(*pair)
    return _of_netrc(urlsplit(url).hostname or "", found.first("netrc"))


def known_user(url: str, found: Network) -> Optional[Tuple[str, str]]:
    """User and password that a URL has, or an index on the same host; the password may be empty."""
    host = urlsplit(url).netloc
    indexes = [one.value for one in found.settings if one.name.endswith("index") or one.name == "find-links"]
    for text in [url, *indexes]:
        user, at, other = _netloc(without_name(text)).rpartition("@")
        if at and other == host.rpartition("@")[2]:
            name, _, password = user.partition(":")
            return unquote(name), unquote(password)
    return None


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _of_netrc(host: str, path: Optional[str]) -> Optional[str]:
    import netrc

    try:
        row = netrc.netrc(path).authenticators(host) if path else None
    except (OSError, netrc.NetrcParseError, ValueError):
        return None
    return basic(row[0], row[2] or "") if row else None


def basic(user: str, password: str) -> str:
    import base64

    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Keyring:
    """The program `keyring`, asked as uv asks it: for the URL, then for its host."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._program = shutil.which("keyring", path=environ.get("PATH"))

    def ask(self, url: str, user: str) -> Optional[Tuple[str, str]]:
        """User and password, of any user where `user` is empty; None where it knows none."""
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        for service in (urlunsplit((parts.scheme, host, parts.path, "", "")), host):
            if user:
                said = self._said("get", service, user)
                if said:
                    return user, said[0]
            else:
                said = self._said("--mode", "creds", "get", service)
                if len(said) == 2:
                    return said[0], said[1]
        return None

    def _said(self, *words: str) -> List[str]:
        import subprocess

        if self._program is None:
            return []
        try:
            done = subprocess.run(
                [self._program, *words],
                env=dict(self._environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return []
        return done.stdout.decode("utf-8", "replace").splitlines() if done.returncode == 0 else []
