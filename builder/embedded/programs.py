"""Programs of packages that find the Python beside them, wherever their environment is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from builder.embedded.installed import distributions, read_record, rewrite_record

RELOCATABLE = b"#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python' \"$0\" \"$@\"\n' '''\n"
"""How uv begins a program of a relocatable environment."""


def make_relocatable(site: Path, prefix: Path, python: str = "") -> None:
    """Let the programs in `prefix`/bin find the Python beside them, not `python` or ours, for which uv installed them.

    Their rows in RECORD follow.
    """
    heads = list(_heads({python or sys.executable, getattr(sys, "_base_executable", sys.executable), sys.executable}))
    programs = os.path.normpath(prefix / "bin")
    for info in distributions(site).values():
        changed = {}
        for row in read_record(info):
            if not row or not row[0].startswith("../") or os.path.dirname(os.path.normpath(site / row[0])) != programs:
                continue
            content = (site / row[0]).read_bytes()
            head = next((head for head in heads if content.startswith(head)), None)
            if head is not None:
                changed[row[0]] = RELOCATABLE + content[len(head) :]
        for path, content in changed.items():
            _replace(site / path, content)
        if changed:
            rewrite_record(info, changed)


def _heads(pythons: Iterable[str]) -> Iterable[bytes]:
    """How uv begins a program for these interpreters; one with a space or a long path needs a shell."""
    for path in {name for python in pythons for name in (python, os.path.realpath(python))}:
        yield b"#!" + os.fsencode(path) + b"\n"
        yield b"#!/bin/sh\n'''exec' '" + os.fsencode(path.replace("'", "'\"'\"'")) + b"' \"$0\" \"$@\"\n' '''\n"


def _replace(path: Path, content: bytes) -> None:
    """Through a new file: the old one may be a hard link into uv's cache."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.chmod(path.stat().st_mode & 0o777)
    new.replace(path)
