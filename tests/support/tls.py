"""A certificate authority that no machine knows, as companies have one, made by openssl."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """In `folder`: `file` is its certificate, `client` one of its clients, with the key."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("there is no openssl to make certificates with")
        folder.mkdir(parents=True)
        self._folder = folder
        self.file = folder / "authority.pem"
        uses = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        _openssl("req", "-x509", *_KEY, "-subj", "/CN=Company", *uses, "-keyout", folder / "key", "-out", self.file)
        self._server = self._signed("server", "subjectAltName=DNS:localhost,DNS:index.example,IP:127.0.0.1")
        self.client = self._signed("client", "extendedKeyUsage=clientAuth")

    def server_context(self, *, clients: bool = False) -> ssl.SSLContext:
        """For a server on loopback; with `clients`, it wants a certificate of this authority from them too."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._server)
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.file)
        return context

    def _signed(self, name: str, extension: str) -> Path:
        request, key, pem = (self._folder / f"{name}{end}" for end in (".csr", ".key", ".pem"))
        _openssl("req", *_KEY, "-subj", f"/CN={name}", "-addext", extension, "-keyout", key, "-out", request)
        signer: list[str | Path] = ["-CA", self.file, "-CAkey", self._folder / "key", "-copy_extensions", "copy"]
        _openssl("x509", "-req", "-in", request, *signer, "-days", "2", "-out", pem)
        pem.write_text(pem.read_text() + key.read_text())
        return pem


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
