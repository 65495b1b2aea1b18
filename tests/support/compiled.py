"""Bytecode for packages as an installer leaves them: on every Python from 3.9 on, with what scripts carry."""

from __future__ import annotations

import base64
from pathlib import Path

from builder.embedded.bytecode import give
from builder.embedded.installed import distributions, read_record


def link_bytecode(site: Path, bytecode: Path) -> list[str]:
    """Give every module of a site-packages folder its bytecode, as its RECORD files name them; returns as `give`.

    A path that leaves its package's folder is not followed.
    """
    found = []
    for info in distributions(site).values():
        for row in read_record(info):
            path = row[0] if len(row) > 1 and row[1].startswith("sha256=") else ""
            if path.endswith(".py") and not path.startswith("/") and ".." not in path.split("/"):
                found.append((base64.urlsafe_b64decode(row[1][len("sha256=") :] + "=").hex(), path))
    return give({site: found}, bytecode)[site]
