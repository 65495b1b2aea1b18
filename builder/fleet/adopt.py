"""Run on a host, by a Python of the environment's series: HOME. It takes over wheels that are unpacked at the desk.

It stands in a folder with what came so far: `asked.json` says what Python they are for, and names the files whose bytes
follow on standard input: bytecode, each by the sha256 of its source and sealed for it, then those of each wheel.

What comes is trusted no more than what an installer brings: a wheel gets its name in the store as in any build
(builder/embedded/unpack.py), once each file is what its RECORD says, and that is the RECORD of the desk. Where the
connection breaks, those that have their names stay, and need not come again.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

sys.path.insert(0, ".")

from builder.embedded import bytecode, claim, folders, lifeline  # it is not there before
from builder.embedded.errors import StageError
from builder.embedded.hashes import record_hash
from builder.embedded.unpack import unpack

_PIPE = 1 << 20
_F_SETPIPE_SZ = 1031  # fcntl(2), Linux; fcntl has it from Python 3.10


class Stream:
    """Standard input, in pieces of some bytes."""

    def __init__(self) -> None:
        self._rest = memoryview(b"")
        if sys.platform == "linux":
            try:
                fcntl.fcntl(0, _F_SETPIPE_SZ, _PIPE)
            except OSError:
                pass

    def pieces(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes. Raises StageError where there are no more."""
        while size:
            if not self._rest:
                self._rest = memoryview(os.read(0, _PIPE))
                if not self._rest:
                    raise StageError("the connection broke while files came")
            piece, self._rest = self._rest[:size], self._rest[size:]
            size -= len(piece)
            yield piece

    def save(self, size: int, path: str, mode: int, folder: int | None = None) -> None:
        """Write the next `size` bytes to a new file, below an open folder."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        file = os.open(path, flags, mode, dir_fd=folder)
        try:
            for piece in self.pieces(size):
                while piece:
                    piece = piece[os.write(file, piece) :]
        finally:
            os.close(file)


def adopt(home: Path, stream: Stream) -> None:
    """Take over what comes. Raises StageError, OSError; what has its name by then is whole."""
    asked = json.loads(Path("asked.json").read_bytes())
    if asked["tag"] != bytecode.cache_tag():
        raise StageError(f"it is for {asked['tag']}, and this Python is {bytecode.cache_tag()}")
    folders.build_in(home)
    keep_bytecode(asked["bytecode"], stream, home / "bytecode" / bytecode.cache_tag())
    folder = home / "wheels" / bytecode.cache_tag()
    folder.mkdir(parents=True, exist_ok=True)
    claim.sweep(folder, ".new-")
    for row in asked["wheels"]:
        take(row, stream, home, folder)


def take(row: dict[str, Any], stream: Stream, home: Path, folder: Path) -> None:
    """Take over a wheel."""

    def install(_: Sequence[dict[str, Any]], descriptor: int) -> None:
        made: set[str] = set()
        for path, size, is_program in row["files"]:
            if not folders.is_below(path):
                raise StageError(f"{row['name']}: {path} is not a path in an environment")
            make(path.rpartition("/")[0], descriptor, made)
            stream.save(size, path, 0o755 if is_program else 0o644, descriptor)
        for path, promise in row["own"].items():
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=descriptor), "rb") as file:
                if record_hash(file.read()) != promise:
                    raise StageError(f"{row['name']} came damaged")

    def forget(names: Sequence[str]) -> None:
        raise StageError(f"{', '.join(names)} came damaged")

    unpack(home, folder, {row["identity"]: {"name": row["name"]}}, install, forget)


def make(path: str, descriptor: int, made: set[str]) -> None:
    """Make a folder below an open one, with those above it."""
    if path and path not in made:
        make(path.rpartition("/")[0], descriptor, made)
        os.mkdir(path, dir_fd=descriptor)
        made.add(path)


def keep_bytecode(sizes: dict[str, int], stream: Stream, shared: Path) -> None:
    """Keep bytecode that is sealed for its source and for this Python; what is not is compiled again."""
    for digest, size in sizes.items():
        content = b"".join(stream.pieces(size))
        if len(digest) != 64 or not digest.isalnum() or content[:4] != MAGIC_NUMBER:
            continue
        target = shared / digest[:2] / f"{digest[2:]}.pyc"
        if content[-32:] != bytecode.seal(digest, content[:-32]) or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f"{target.name}.{os.getpid()}")
        new.write_bytes(content)
        new.chmod(folders.mode_of(0o444))
        os.replace(new, target)
    # A power cut must not leave half a module behind a whole name; of a wheel's files, its note knows the sizes.
    os.sync()


if __name__ == "__main__":
    lifeline.leave_on_signals()
    try:
        adopt(Path(sys.argv[1]), Stream())
    except (StageError, OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"drydock: error: {error}")
