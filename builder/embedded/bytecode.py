"""Bytecode: compiled once per source, and linked into every environment.

    bytecode/TAG/ab/cdef….pyc       the bytecode of the source whose sha256 is abcdef…, and a seal

The shared file is named by Python's cache tag and the sha256 of the source, which RECORD has already. It is an
unchecked hash-based pyc (PEP 552): no time and no path of the store is in it.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from builder.embedded import folders, lifeline, progress
from builder.embedded.errors import StageError
from builder.embedded.hashes import sha256
from builder.embedded.workers import exit_after, on_all_cores


class Source(NamedTuple):
    """A module to compile: its path and sha256, where its bytecode goes, and where the shared bytecode is kept."""

    path: str
    digest: str
    cached: str
    shared: str


def cache_tag() -> str:
    """What the names of this Python's bytecode end with, before .pyc (PEP 3147)."""
    return sys.implementation.cache_tag or "unknown"


def give(modules: Mapping[Path, Sequence[tuple[str, str]]], bytecode: Path) -> dict[Path, list[str]]:
    """Give modules their bytecode, by a hard link to one shared file per source, which is compiled where it is missing.

    `modules` has for each folder the sha256 and the relative path of each module in it; `bytecode` is the folder of all
    that is shared. Returns for each folder the modules that this Python cannot compile. Raises StageError.
    """
    shared, tag = f"{bytecode}/{cache_tag()}", cache_tag()
    sources = {
        folder: [_source(str(folder), path, digest, shared, tag) for digest, path in some]
        for folder, some in modules.items()
    }
    for folder in {os.path.dirname(source.cached) for some in sources.values() for source in some}:
        os.makedirs(folder, exist_ok=True)
    missing = []
    copied = 0
    for some in sources.values():
        for source in some:
            try:
                copied += _link(source)
            except (FileNotFoundError, FileExistsError):  # what a wheel brings itself makes room for ours
                if not _is_same(source):
                    if os.path.lexists(source.cached):
                        os.unlink(source.cached)
                    missing.append(source)
    if missing:
        copied += _compile_and_link(missing)
    if copied:
        print(f"drydock:       bytecode: {copied} copied, as this file system would not link them", file=sys.stderr)
    without = {source.cached for source in missing if not os.path.exists(source.cached)}
    return {
        folder: [path for (_, path), source in zip(modules[folder], some) if source.cached in without]
        for folder, some in sources.items()
    }


def place_of(path: str, tag: str) -> str:
    """Where Python looks for the bytecode of a module (PEP 3147)."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}__pycache__/{name[:-3]}.{tag}.pyc"


def _source(base: str, path: str, digest: str, shared: str, tag: str) -> Source:
    cached = f"{base}/{place_of(path, tag)}"
    return Source(f"{base}/{path}", digest, cached, f"{shared}/{digest[:2]}/{digest[2:]}.pyc")


def _link(source: Source) -> bool:
    """Link the shared bytecode of one source into place; True where it had to be copied.

    Raises FileNotFoundError where there is none, FileExistsError where something is in place.
    """
    try:
        os.link(source.shared, source.cached)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError:  # another file system, one without hard links, or a file that has too many of them
        import shutil

        shutil.copyfile(source.shared, source.cached)
        return True
    return False


def _is_same(source: Source) -> bool:
    try:
        return os.path.samefile(source.shared, source.cached)
    except FileNotFoundError:
        return False


def _compile_and_link(missing: list[Source]) -> int:
    """Compile what is not shared yet, each source once, and link it; gives how many had to be copied."""
    sources = list({source.shared: source for source in missing}.values())
    for folder in {os.path.dirname(source.shared) for source in sources}:
        os.makedirs(folder, exist_ok=True)

    def said(done: int) -> None:
        progress.show("bytecode", done + len(giants), len(sources))

    sources = [source for source in sources if not _is_shared(source)]
    sizes = {source.path: os.path.getsize(source.path) for source in sources}
    giants = []
    for source in sources:
        if sizes[source.path] >= _GIANT:
            said(0)
            _compile_apart(source)  # with nothing beside it
            giants.append(source)
    rest = [source for source in sources if sizes[source.path] < _GIANT]
    on_all_cores(_compile_apart, rest, [sizes[source.path] for source in rest], grain=1_000_000, progress=said)
    progress.end()
    if any(_is_shared(source) for source in sources):
        os.sync()  # a power cut must not leave half a module behind a whole name
    return sum(_link(source) for source in missing if _is_shared(source))


def _is_shared(source: Source) -> bool:
    return os.path.exists(source.shared)


# What the compiler took for a large module, 60 MB for one of 1.4 MB, stays with its process.
_LARGE, _GIANT = 100_000, 400_000


def _compile_apart(source: Source) -> None:
    """Compile a module, a large one in a process of its own. Raises StageError where that process fails."""
    if os.path.getsize(source.path) < _LARGE:
        _compile(source)
        return
    child = os.fork()
    if child == 0:
        exit_after(lambda: _compile(source))
    lifeline.add(child)
    status = os.waitpid(child, 0)[1]
    lifeline.drop(child)
    if status:
        raise StageError(f"{source.path} could not be compiled: see above, or is memory short?")


def _compile(source: Source) -> None:
    with open(source.path, "rb") as file:
        text = file.read()
    # The shared name promises this very source to every environment, and RECORD is the wheel's word for it, no more.
    content = bytecode_of(text) if sha256(text) == source.digest else None
    if content is None:
        return
    new = f"{source.shared}.{os.urandom(4).hex()}"
    try:
        with open(new, "wb") as file:
            file.write(content + seal(source.digest, content))
        os.chmod(new, folders.mode_of(0o444))
        os.replace(new, source.shared)
    except OSError:
        if os.path.exists(new):
            os.unlink(new)
        raise


def seal(digest: str, content: bytes) -> bytes:
    """What stands after bytecode, so that it can be checked without compiling: a sha256 of it and its source's sha256.

    Python ignores what follows ("marshal.loads: extra characters in the input are ignored").
    """
    return hashlib.sha256(bytes.fromhex(digest) + content).digest()


def bytecode_of(source: bytes) -> bytes | None:
    """The unchecked hash-based pyc (PEP 552) of a source; None where this Python cannot compile it.

    On Python 3.11 and newer the same source gives the same bytes, whatever was compiled before, but for a rare set
    among 2,500 modules (CPython issue 78274); older ones write sets in the order of random hashes (issue 81777).
    """
    import warnings
    from importlib.util import MAGIC_NUMBER, source_hash

    # A constant of one character is one object in a process, and is written otherwise once anything interned it.
    for number in range(256):
        sys.intern(chr(number))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            # The import system puts the real path in when it loads the code, so none has to be in the file.
            code = compile(source, "<drydock>", "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # as compileall does
    return MAGIC_NUMBER + (0b01).to_bytes(4, "little") + source_hash(source) + marshal.dumps(code)
