"""A run as a folder: for an archive, a colleague, or a bug report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builder.embedded import state
from builder.errors import UsageError
from builder.files import beside
from builder.run.records import folder

_RECORD = {"schema": int}


def export(word: str, target: Path) -> list[Path]:
    """Write the run that `word` means into the new folder `target`, whole or not at all; returns the files.

    A record that this Drydock cannot read is written as it is. Raises UsageError where anything is at `target`.
    """
    content = folder.raw(folder.find(word).id)
    if os.path.lexists(target):
        raise UsageError(f"{target} already exists", hint="move it away, or use another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    new = beside(target)
    new.mkdir(mode=0o700)
    try:
        (new / "record.json").write_bytes(content)
        for name, text in _texts(state.parse_json(content, _RECORD) or {}):
            (new / name).write_bytes(text)
        new.replace(target)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return sorted(target.iterdir())


def _texts(record: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    code = record.get("code")
    parts = {**record, "difference": code.get("difference")} if isinstance(code, dict) else record
    for part, name in (("lock", "lock.toml"), ("script", "run.sh"), ("difference", "difference.patch")):
        found = parts.get(part)
        text = folder.read_object(str(found.get("object", ""))) if isinstance(found, dict) else None
        if text is not None:
            yield name, text
