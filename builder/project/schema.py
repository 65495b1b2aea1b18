"""The JSON Schema of profiles as a file: write it, or say where it differs."""

from __future__ import annotations

from pathlib import Path

from builder.errors import DriftError, UsageError
from builder.files import write_atomically
from builder.profile.schema import MARK, text


def write(path: Path) -> bool:
    """Put the schema at `path`; whether anything changed. Raises UsageError where another file is there."""
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise UsageError(f"{path} was not made by Drydock", hint="move it away, or name another file")
    if path.exists() and path.read_text(encoding="utf-8") == text():
        return False
    write_atomically(path, text())
    return True


def check(path: Path) -> None:
    """Raises DriftError where `path` is not the schema of this Drydock."""
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text():
        raise DriftError(f"{path} is not the schema of this Drydock", hint=f"drydock profile schema -o {path}")
