"""Folders that are being made, or are there for a while: nobody deletes them while their process lives.

By the same rules as the stage of a build (builder/embedded/claim.py): a lock that the kernel holds, and a note with
signs of life for machines that do not see the lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder import files
from builder.embedded import claim, folders
from builder.embedded.lifeline import SIGN


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent` whose name begins with `prefix`; gone after the `with`, with all that is in it.

    What processes left there that died is deleted first. Raises OSError.
    """
    files.make_folder(parent)
    claim.sweep(parent, prefix)
    path, descriptor = claim.begin(parent, prefix)
    over = threading.Event()
    try:
        threading.Thread(target=_sign, args=(path / claim.NOTE, over), daemon=True).start()
        yield path
    finally:
        over.set()
        os.close(descriptor)
        folders.remove_path(path)


def _sign(note: Path, over: threading.Event) -> None:
    """Renew the time of the note until it is over."""
    while not over.wait(SIGN):
        try:
            os.utime(note)
        except OSError:
            return
