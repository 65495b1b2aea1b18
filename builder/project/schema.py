"""The JSON Schema of profiles as a file: write it, or say where it differs."""

from __future__ import annotations

from pathlib import Path

from builder.errors import DriftError
from builder.files import owns, replace_ours
from builder.profile.schema import MARK, text


def write(path: Path) -> bool:
    """Put the schema at `path`; whether anything changed. Raises UsageError where another file is there."""
    if owns(path, lambda there: there == text()):
        return False
    replace_ours(path, text(), lambda there: MARK in there, "-o")
    return True


def check(path: Path) -> None:
    """Raises DriftError where `path` is not the schema of this Drydock."""
    if not owns(path, lambda there: there == text()):
        raise DriftError(f"{path} is not the schema of this Drydock", hint=f"drydock profile schema -o {path}")
