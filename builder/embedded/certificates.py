"""Which servers are trusted: by the certificates that the settings name, or those of the system."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Iterator, List, Optional

from builder.embedded.network_settings import Network


def context(found: Network, host: str) -> Any:
    """How a host is trusted; one of the hosts that need no certificate is trusted in any case."""
    insecure = any(
        host in (name, f"{name}:443") or host.partition(":")[0] == name for name in found.all("insecure-host")
    )
    named = (found.first("certificates"), found.first("certificate-folders"), found.first("system-certificates"))
    return _context_of(*named, found.first("client-certificate"), insecure)


@lru_cache(maxsize=8)
def _context_of(
    file: Optional[str], folders: Optional[str], system: Optional[str], client: Optional[str], insecure: bool
) -> Any:
    import ssl

    if insecure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif file or folders:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if file:
            with _naming(file):
                context.load_verify_locations(file)
        for path in _certificate_files(folders) if folders else ():
            with suppress(OSError):  # something else may be there
                context.load_verify_locations(path)
    else:
        context = ssl.create_default_context()
        # The newest Pythons refuse what uv, browsers and many companies' own authorities do (CPython 3.13).
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if system and os.path.isfile(system):
            context.load_verify_locations(system)
        elif system:
            context.load_verify_locations(cadata=_keychain())
    if client:
        with _naming(client):
            context.load_cert_chain(client)
    return context


@contextmanager
def _naming(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # ssl.SSLError is one
        raise OSError(f"{path} has no certificate that can be used: {error.strerror or error}") from None


def _certificate_files(folders: str) -> List[str]:
    """The files of some folders, each once: certificates are linked there under several names."""
    found = {
        os.path.realpath(os.path.join(folder, name))
        for folder in folders.split(os.pathsep)
        for name in os.listdir(folder)
    }
    return sorted(path for path in found if os.path.isfile(path))


def _keychain() -> str:
    """The certificates of macOS: its own, and those that an administrator or the user added."""
    import subprocess

    roots = "/System/Library/Keychains/SystemRootCertificates.keychain"
    pieces = []
    for place in ((), (roots,)):
        command = ["/usr/bin/security", "find-certificate", "-a", "-p", *place]
        with suppress(OSError, subprocess.SubprocessError):
            pieces.append(
                subprocess.check_output(command, stdin=subprocess.DEVNULL, timeout=30).decode("ascii", "replace")
            )
    return "\n".join(pieces)
