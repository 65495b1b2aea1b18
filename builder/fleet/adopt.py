"""Run on a host, by a Python of the environment's series: HOME. It takes over wheels that are unpacked at the desk.

It stands in a folder with what came:

    copy/asked.json                 what Python they are for, and of each its name, its RECORD's hash and others'
    copy/IDENTITY/                  the files of a wheel, without bytecode
    bytecode/ab/cdef.pyc            bytecode by the sha256 of its source, sealed

What came is trusted no more than what an installer brings: a wheel gets its name in the store as in any build
(builder/embedded/unpack.py), once each file is what its RECORD says, and that is the RECORD of the desk.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

sys.path.insert(0, ".")

from builder.embedded import bytecode, claim, folders, lifeline  # it is not there before
from builder.embedded.errors import StageError
from builder.embedded.hashes import record_hash
from builder.embedded.unpack import unpack


def adopt(home: Path, came: Path) -> None:
    """Take over what came. Raises StageError, OSError; what has its name by then is whole."""
    asked = json.loads((came / "copy/asked.json").read_bytes())
    if asked["tag"] != bytecode.cache_tag():
        raise StageError(f"it is for {asked['tag']}, and this Python is {bytecode.cache_tag()}")
    folders.build_in(home)
    keep_bytecode(came / "bytecode", home / "bytecode" / bytecode.cache_tag())
    folder = home / "wheels" / bytecode.cache_tag()
    folder.mkdir(parents=True, exist_ok=True)
    claim.sweep(folder, ".new-")
    packages = {one: {"name": row["name"], "identity": one} for one, row in asked["wheels"].items()}
    for one, row in asked["wheels"].items():
        for path, promise in row["own"].items():
            if record_hash((came / "copy" / one / path).read_bytes()) != promise:
                raise StageError(f"{row['name']}: {path} came damaged")

    def install(some: Sequence[dict[str, Any]], descriptor: int) -> None:
        for package in some:
            put(came / "copy" / package["identity"], descriptor)

    def forget(names: Sequence[str]) -> None:
        raise StageError(f"{', '.join(names)} came damaged")

    unpack(home, folder, packages, install, forget)


def put(tree: Path, descriptor: int) -> None:
    """Link the files of a wheel below an open folder; of a path that is there already, that one stays."""
    for folder, _, names in os.walk(tree):
        below = os.path.relpath(folder, tree)
        for part in [*reversed(Path(below).parents), Path(below)][1:]:
            try:
                os.mkdir(part, dir_fd=descriptor)
            except FileExistsError:
                pass
        for name in names:
            path = os.path.normpath(os.path.join(below, name))
            try:
                os.link(os.path.join(folder, name), path, dst_dir_fd=descriptor)
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755, dir_fd=descriptor)
                with open(new, "wb") as target, open(os.path.join(folder, name), "rb") as source:
                    os.fchmod(new, os.fstat(source.fileno()).st_mode & 0o777)
                    shutil.copyfileobj(source, target)


def keep_bytecode(came: Path, shared: Path) -> None:
    """Keep bytecode that is sealed for its source; what is not is compiled again."""
    for path in came.glob("??/*.pyc"):
        target = shared / path.parent.name / path.name
        digest, content = path.parent.name + path.stem, path.read_bytes()
        if target.exists() or content[:4] != MAGIC_NUMBER:
            continue
        if content[-32:] != bytecode.seal(digest, content[:-32]):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        path.chmod(folders.mode_of(0o444))
        os.rename(path, target)


if __name__ == "__main__":
    lifeline.leave_on_signals()
    try:
        adopt(Path(sys.argv[1]), Path())
    except (StageError, OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"drydock: error: {error}")
    # What has its name must be on the disk with it.
    os.sync()
