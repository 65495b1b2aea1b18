"""Wheels that were built here, or came from the place that a requirement names, kept by content: no index has them.

cache/built/SHA256/FILE         the wheel
cache/built/SHA256/built.json   what builds it: {"build-requires": [TEXT, ...]}
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from builder.embedded import state
from builder.errors import LockError
from builder.files import beside, hash_of, make_folder, write_atomically
from builder.store import roots
from builder.store.layout import Store

_NOTE = {"build-requires": [str]}


def keep(wheel: Path, requires: Sequence[str], lock: Path) -> None:
    """Keep a wheel that `requires` built for the builds to come, as long as the file `lock` names it: another build of
    the same source may be other bytes. Raises LockError.
    """
    digest = hash_of(wheel)
    folder = _folder(digest)
    roots.mark_source(digest, lock.absolute())
    try:
        make_folder(folder)
        write_atomically(folder / "built.json", json.dumps({"build-requires": list(requires)}))
        _copy(wheel, folder / wheel.name)
    except OSError as error:
        raise LockError(f"{folder} cannot be written: {error.strerror}", hint="DRYDOCK_HOME names another") from None


def kept_wheel(file: str, digest: str) -> Path | None:
    """The wheel of that name that is kept here, by its sha256; no collection takes it for a day from now."""
    found = _folder(digest) / file
    with suppress(OSError):
        os.utime(found.parent)
    return found if found.is_file() and hash_of(found) == digest else None


def requires(digest: str) -> tuple[str, ...]:
    """What built a wheel; nothing for one that is not kept here."""
    note = state.read_json(_folder(digest) / "built.json", _NOTE)
    return tuple(note["build-requires"]) if note is not None else ()


def _folder(digest: str) -> Path:
    return Store.here().built / digest


def _copy(source: Path, target: Path) -> None:
    new = beside(target)
    try:
        shutil.copyfile(source, new)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
