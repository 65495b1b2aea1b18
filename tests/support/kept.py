"""Bytecode that tests with torch have compiled, kept for the next run: by the hash of its source, as in a store.

    ~/.cache/drydock-tests/bytecode-SHA256/TAG/ab/cdef….pyc

SHA256 is that of the code that compiles, so that a change of it compiles all anew. Each run still compares a part with
what it compiles itself: a second build of `cpu-swarm` (tests/check/test_reproduce.py) begins with nothing.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from builder.embedded import bytecode, workers

CACHE = Path.home() / ".cache/drydock-tests"
_MOST = 60_000  # files: four times what a run needs
_OLD = 14 * 86_400  # seconds


def _folder() -> Path:
    code = "".join(inspect.getsource(module) for module in (bytecode, workers))
    return CACHE / f"bytecode-{hashlib.sha256(code.encode()).hexdigest()[:16]}"


def bring(target: Path) -> None:
    """Make `target`, with what is kept."""
    here = _folder()
    if here.is_dir():
        link_tree(here, target)
        # These are files of the stores of all runs, too: one that was made writable there, to be removed, is so here.
        for path in target.rglob("*.pyc"):
            path.chmod(0o444)


def keep(source: Path) -> None:
    """Keep what a run has compiled, and nothing that grows or is old."""
    with suppress(OSError):  # a home that cannot be written to: all is compiled each time
        _keep(source, _folder())


def _keep(source: Path, here: Path) -> None:
    if sum(len(files) for _, _, files in os.walk(here)) > _MOST:
        shutil.rmtree(here, ignore_errors=True)
    for path in source.rglob("*.pyc"):
        target = here / path.relative_to(source)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            link(str(path), str(target))
    here.mkdir(parents=True, exist_ok=True)
    os.utime(here)
    for other in CACHE.glob("bytecode-*"):
        if time.time() - other.stat().st_mtime > _OLD:
            shutil.rmtree(other, ignore_errors=True)


def link_tree(source: Path, target: Path) -> None:
    """Make `target`, a folder with the files of `source` as hard links where its file system allows that."""
    shutil.copytree(source, target, copy_function=link)


def link(source: str, target: str) -> None:
    """Link a file, or copy it; where another run was quicker, it is there."""
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError:
        shutil.copyfile(source, target)
